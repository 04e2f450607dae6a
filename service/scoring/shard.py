"""One shard, from bytes to a commit: the same function on every engine.

Reading runs ahead of the model on a thread of its own and writing behind it on another, so that the model is what a
worker waits for. What a shard commits depends on the shard and the job alone.
"""

import logging
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from service.scoring.ahead import ahead
from service.scoring.completions import is_openai_batch, responses
from service.scoring.files import InputFile, current_stamp
from service.scoring.job import Job
from service.scoring.join import ids, joined
from service.scoring.ledger import Ledger, Record, sha256_of
from service.scoring.model import load
from service.scoring.plan import READ_ERRORS, ReadError, Shard, describe, file_want
from service.scoring.rows import Reader, Rows
from service.scoring.scorers import SCORERS
from service.scoring.scorers.scored import Scored
from service.scoring.sinks import Sink, to_json
from service.scoring.sources import SOURCES

CONFIDENCE_BINS = 20
LOGGED_REASONS = 20  # of one shard; every reason is in its file, every row is in the log
LOGGED_CHARS = 300  # of a reason or a name in the log
LOGGED_BYTES = 4000  # of a line: what a pipe that workers share takes as one is 4,096
AHEAD = 2  # chunks that are read before they are needed

log = logging.getLogger(__name__)


class Context:
    """What a worker keeps between the shards of a job: the model, the ledger, the file it reads."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.ledger = Ledger(job.output)
        self.model = load(job)
        self.scorer = SCORERS[self.model.manifest.parameters.family](self.model, job.columns, job.request)
        self.labels = getattr(self.model.manifest.parameters, "labels", ())
        self._file: InputFile | None = None
        self._reader: Reader | None = None

    def reader(self, file: InputFile) -> Reader:
        """An open reader of the file; the one of the last shard if it is the same file."""
        if self._reader is None or self._file != file:
            self.forget_reader()
            self._reader = SOURCES[file.format].open(file, file_want(self.job, file))
            self._file = file
        return self._reader

    def forget_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def close(self) -> None:
        self.forget_reader()
        self.scorer.close()
        self.ledger.close()


def score_shard(context: Context, shard: Shard, progress: Callable[[int, int], None]) -> Record | None:
    """Score and commit a shard that no one else owns; None if another process has it.

    `progress(rows, rejects)` is called as rows are done. Raises ReadError that names file and rows if the input cannot
    be read, OSError if the output cannot be written; nothing is committed then.
    """
    if not context.ledger.own(shard):
        return None
    try:
        return context.ledger.committed(shard) or _compute(context, shard, progress)
    finally:
        context.ledger.release(shard)


def _compute(context: Context, shard: Shard, progress: Callable[[int, int], None]) -> Record:
    job, ledger = context.job, context.ledger
    written, rejects = ledger.work_path(shard, job.sink), _Rejects(ledger.work_path(shard, "rejects"), job, shard)
    tally = _Tally(len(context.labels))
    sink: Sink | None = None
    shape = partial(responses, tokenizer=context.model.tokenizer) if is_openai_batch(job) else joined
    try:
        with rejects, ahead(_rows(context, shard), AHEAD) as found:
            for rows in found:
                scored = context.scorer.score(rows)
                table = shape(job, shard.file, rows, scored)
                if sink is None:
                    sink = Sink(written, job.sink, table.schema)
                sink.write(table)
                rejects.write(rows, scored)
                tally.add(scored)
                progress(len(rows.numbers), len(scored.faults))
            if sink is not None:
                sink.close()
    except BaseException:
        if sink is not None:
            sink.abandon()
        raise
    parts = {f"predictions/part-{shard.name}.{job.sink}": written} if sink is not None else {}
    if rejects.count:
        parts[f"rejects/part-{shard.name}.jsonl"] = rejects.path
    record = Record(
        key=shard.key,
        file=shard.file.name,
        first_row=shard.span.first_row,
        scored=tally.scored,
        rejected=rejects.count,
        labels=tuple(tally.labels.tolist()),
        confidence=tuple(tally.confidence.tolist()),
        parts={name: sha256_of(path) for name, path in parts.items()},
    )
    ledger.commit(shard, record, parts)
    return record


class _Tally:
    """Whole numbers, so that sums do not depend on their order."""

    def __init__(self, labels: int) -> None:
        self.scored = 0
        self.labels = np.zeros(labels, np.int64)
        self.confidence = np.zeros(CONFIDENCE_BINS, np.int64)

    def add(self, scored: Scored) -> None:
        self.scored += len(scored.kept)
        if scored.labels is not None and scored.confidence is not None:
            self.labels += np.bincount(scored.labels, minlength=len(self.labels))
            self.confidence += _bins(scored.confidence)


def _bins(confidence: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    places = np.minimum((confidence * CONFIDENCE_BINS).astype(np.int64), CONFIDENCE_BINS - 1)
    return np.bincount(places, minlength=CONFIDENCE_BINS)


class _Rejects:
    """Rejected rows, a JSON object a line: where each is, and why; and in the log, many rows a line."""

    def __init__(self, path: Path, job: Job, shard: Shard) -> None:
        self.path, self.count = path, 0
        self._job, self._shard = job, shard
        self._file: Any = None
        self._reasons: set[str] = set()  # those that the log has told

    def __enter__(self) -> "_Rejects":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, rows: Rows, scored: Scored) -> None:
        indexes = sorted(scored.faults)
        for i, own in zip(indexes, ids(self._job, rows, indexes), strict=True):
            entry = {"file": self._shard.file.name, "row": int(rows.numbers[i]), "shard": self._shard.name}
            if rows.lines is not None:
                entry["line"] = rows.lines[i]
            if self._job.id_column:
                entry[self._job.id_column if self._job.id_column not in entry else "id"] = own
            if self._file is None:
                self._file = self.path.open("wb")
            self._file.write(to_json({**entry, "reason": _printable(scored.faults[i])}) + b"\n")
            self.count += 1
        self._log(rows, scored.faults, indexes)

    def _log(self, rows: Rows, faults: Mapping[int, str], indexes: Sequence[int]) -> None:
        """A line for each reason, more if it has many rows; beyond `LOGGED_REASONS` of them, one for all others."""
        found: dict[str, list[int]] = {}
        for i in indexes:
            reason = faults[i]
            if reason not in self._reasons and len(self._reasons) < LOGGED_REASONS:
                self._reasons.add(reason)
            told = reason if reason in self._reasons else f"see rejects/part-{self._shard.name}.jsonl"
            found.setdefault(told, []).append(int(rows.numbers[i]))
        for reason, numbers in found.items():
            begin, end = f"shard {self._shard.name}: {loggable(self._shard.file.name)}, ", f": {loggable(reason)}"
            room = LOGGED_BYTES - len(f"{begin}rows {end}\n".encode())
            for part in textwrap.wrap(ranges(numbers), room, break_on_hyphens=False):
                where = part.removesuffix(",")
                log.warning("%s%s %s%s", begin, "row" if where.isdecimal() else "rows", where, end)


def ranges(numbers: Sequence[int]) -> str:
    """Rising numbers as people write them: 1, 4-7, 9."""
    edges = [i for i in range(1, len(numbers)) if numbers[i] != numbers[i - 1] + 1]
    runs = [(numbers[begin], numbers[end - 1]) for begin, end in pairwise([0, *edges, len(numbers)])]
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def loggable(text: str) -> str:
    """On one line and not long, whatever a stranger's file holds."""
    escaped = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[: LOGGED_CHARS + 1])
    return escaped if len(escaped) <= LOGGED_CHARS else escaped[: LOGGED_CHARS - 1] + "…"


def _rows(context: Context, shard: Shard) -> Iterator[Rows]:
    """The rows of a shard, from a file that is still the one that was planned."""
    try:
        for rows in context.reader(shard.file).read(shard.span):
            yield rows.before(shard.span.first_row + shard.span.rows)
        if current_stamp(shard.file) != shard.file.stamp:
            raise ReadError("the file was changed while it was being scored")
    except READ_ERRORS as error:
        context.forget_reader()
        detail = str(error) if isinstance(error, ReadError) else describe(error)
        raise ReadError(f"{shard.title}: {detail}") from error
