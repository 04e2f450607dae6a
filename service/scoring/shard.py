"""Scores one shard, from reading its rows to the commit; every engine calls this function.

One thread reads ahead of the model and another writes behind it, so that a worker spends its time in the model.
Invariant: what a shard commits depends on the shard and the job alone.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import numpy.typing as npt

from service.scoring.input.files import InputFile, current_fingerprint
from service.scoring.input.rows import Rows, Source
from service.scoring.job import Job
from service.scoring.model import load_bundle
from service.scoring.output.completions import completion_lines, is_openai_batch
from service.scoring.output.join import join_predictions
from service.scoring.output.ledger import Ledger, Record, sha256_of
from service.scoring.output.rejects import RejectFile
from service.scoring.output.sinks import Sink
from service.scoring.plan import READ_ERRORS, ReadError, Shard, format_error, read_spec
from service.scoring.prefetch import prefetch
from service.scoring.scorers import SCORERS
from service.scoring.scorers.scorer import ScoredRows
from service.scoring.sources import SOURCES

CONFIDENCE_BINS = 20
PREFETCHED_CHUNKS = 2


class Context:
    """What a worker keeps from one shard of a job to the next: the model, the ledger and the open input file."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.ledger = Ledger(job.output)
        self.model = load_bundle(job.bundle, job.device)
        self.scorer = SCORERS[self.model.manifest.parameters.family](self.model, job.columns, job.request)
        self.labels = getattr(self.model.manifest.parameters, "labels", ())
        self._file: InputFile | None = None
        self._source: Source | None = None

    def source(self, file: InputFile) -> Source:
        """The open file; that of the previous shard if it is the same file."""
        if self._source is None or self._file != file:
            self.close_source()
            self._source = SOURCES[file.format](file, read_spec(self.job, file))
            self._file = file
        return self._source

    def close_source(self) -> None:
        if self._source is not None:
            self._source.close()
            self._source = None

    def close(self) -> None:
        self.close_source()
        self.scorer.close()
        self.ledger.close()


def score_shard(context: Context, shard: Shard, progress: Callable[[int, int], None]) -> Record | None:
    """Score and commit a shard; return None if another process holds its lock.

    `progress(rows, rejects)` is called after each chunk. Raises ReadError that names file and rows if the input cannot
    be read, OSError if the output cannot be written; nothing is committed then.
    """
    if not context.ledger.try_lock(shard):
        return None
    try:
        return context.ledger.committed(shard) or _score(context, shard, progress)
    finally:
        context.ledger.unlock(shard)


def _score(context: Context, shard: Shard, progress: Callable[[int, int], None]) -> Record:
    job, ledger = context.job, context.ledger
    predictions_path = ledger.work_path(shard, job.sink)
    rejects = RejectFile(ledger.work_path(shard, "rejects"), job, shard)
    tally = _Tally(len(context.labels))
    sink: Sink | None = None
    to_table = (
        partial(completion_lines, tokenizer=context.model.tokenizer) if is_openai_batch(job) else join_predictions
    )
    try:
        with rejects, prefetch(_read_rows(context, shard), PREFETCHED_CHUNKS) as chunks:
            for rows in chunks:
                scored = context.scorer.score(rows)
                table = to_table(job, shard.file, rows, scored)
                if sink is None:
                    sink = Sink(predictions_path, job.sink, table.schema)
                sink.write(table)
                rejects.write(rows, scored)
                tally.add(scored)
                progress(len(rows.numbers), len(scored.faults))
            if sink is not None:
                sink.close()
    except BaseException:
        if sink is not None:
            sink.discard()
        raise
    rejects.log_unlisted()
    parts = {f"predictions/part-{shard.name}.{job.sink}": predictions_path} if sink is not None else {}
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
    """Counts of labels and confidences. They are integers, so their sum does not depend on the order of shards."""

    def __init__(self, num_labels: int) -> None:
        self.scored = 0
        self.labels = np.zeros(num_labels, np.int64)
        self.confidence = np.zeros(CONFIDENCE_BINS, np.int64)

    def add(self, scored: ScoredRows) -> None:
        self.scored += len(scored.indexes)
        if scored.labels is not None and scored.confidence is not None:
            self.labels += np.bincount(scored.labels, minlength=len(self.labels))
            self.confidence += _histogram(scored.confidence)


def _histogram(confidence: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    bins = np.minimum((confidence * CONFIDENCE_BINS).astype(np.int64), CONFIDENCE_BINS - 1)
    return np.bincount(bins, minlength=CONFIDENCE_BINS)


def _read_rows(context: Context, shard: Shard) -> Iterator[Rows]:
    """Read the rows of a shard. Raises ReadError if the file cannot be read or has changed since it was planned."""
    try:
        for rows in context.source(shard.file).read(shard.span):
            yield rows.numbered_below(shard.span.first_row + shard.span.rows)
        if current_fingerprint(shard.file) != shard.file.fingerprint:
            raise ReadError("the file was changed while it was being scored")
    except READ_ERRORS as error:
        context.close_source()
        detail = str(error) if isinstance(error, ReadError) else format_error(error)
        raise ReadError(f"{shard.title}: {detail}") from error
