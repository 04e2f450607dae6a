"""Scores one shard, from reading its rows to the commit; every engine calls this function.

One thread reads ahead of the model and another writes behind it, so that a worker spends its time in the model.
Invariant: what a shard commits depends on the shard and the job alone.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress

import numpy as np

from service.drift.distributions import CONFIDENCE_BINS, Counts, count_confidence
from service.scoring.input.files import InputFile, current_fingerprint
from service.scoring.input.rows import Rows, Source
from service.scoring.job import Job
from service.scoring.model import load_bundle
from service.scoring.output.completions import completion_lines
from service.scoring.output.copied import with_copied
from service.scoring.output.join import join_predictions
from service.scoring.output.ledger import Ledger, Record
from service.scoring.output.local_folder import sha256_of
from service.scoring.output.rejects import RejectFile
from service.scoring.output.sinks import Sink
from service.scoring.plan import READ_ERRORS, ChangedError, ReadError, Shard, format_error, read_spec
from service.scoring.prefetch import prefetch
from service.scoring.scorers import scorer_type
from service.scoring.selection.selection import select
from service.scoring.sources import SOURCES

PREFETCHED_CHUNKS = 2


class Context:
    """A worker's state between the shards of a job: the model, the ledger and the open input file."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.ledger = Ledger(job.output, verify=job.verify)
        self.model = load_bundle(job.bundles / job.model / job.version, job.device)
        self.scorer = scorer_type(self.model.manifest, job.input_format)(self.model, job.columns, job.request)
        self.num_labels = len(self.model.manifest.labels)
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
    sink = Sink(ledger.work_path(shard, job.sink), job.sink, escape_formulas=job.escape_formulas)
    rejects = RejectFile(ledger.work_path(shard, "rejects"), job, shard)
    # Integers, so that their sums over shards do not depend on the order of shards.
    num_filtered = 0
    num_scored, labels, confidence = 0, np.zeros(context.num_labels, np.int64), np.zeros(CONFIDENCE_BINS, np.int64)
    drift: dict[str, Counts] = {}
    to_table = completion_lines if job.answers_as_openai else join_predictions
    with rejects, sink, prefetch(_read_rows(context, shard), PREFETCHED_CHUNKS) as chunks:
        for rows in chunks:
            num_filtered += rows.left_out
            if not len(rows.numbers):
                progress(rows.left_out, 0)
                continue
            scored = context.scorer.score(rows)
            sink.write(to_table(job, shard.file, rows, scored))
            rejects.write(rows, scored)
            num_scored += len(scored.indexes)
            labels += np.bincount(scored.labels, minlength=len(labels))
            confidence += count_confidence(scored.confidence)
            for name, counts in scored.drift.items():
                drift[name] = drift.get(name, 0) + counts
            progress(len(rows.numbers) + rows.left_out, len(scored.faults))
    parts = {f"predictions/part-{shard.name}.{job.sink}": sink.path} if sink.is_created else {}
    if rejects.count:
        parts[f"{rejects.folder}/part-{shard.name}.jsonl"] = rejects.path
    record = Record(
        key=shard.key,
        file=shard.file.name,
        first_row=shard.span.first_row,
        scored=num_scored,
        rejected=rejects.count,
        filtered=num_filtered,
        labels=labels.tolist(),
        confidence=confidence.tolist(),
        parts={name: sha256_of(path) for name, path in parts.items()},
        sizes={name: path.stat().st_size for name, path in parts.items()},
        drift={name: counts.tolist() for name, counts in drift.items()},
    )
    ledger.commit(shard, record, parts)
    return record


def _read_rows(context: Context, shard: Shard) -> Iterator[Rows]:
    """Read the rows of a shard. Raises ReadError if the file cannot be read, ChangedError if it is not as planned."""
    is_filtered = context.job.where is not None or context.job.sample is not None
    try:
        for rows in context.source(shard.file).read(shard.span):
            within = rows.numbered_below(shard.span.first_row + shard.span.rows)
            if is_filtered:
                within = select(context.job, shard.file, within)
            yield with_copied(context.job, shard.file, within)
        _check_unchanged(shard)
    except ChangedError:
        context.close_source()
        raise
    except READ_ERRORS as error:
        context.close_source()
        with suppress(OSError):
            _check_unchanged(shard)
        raise ReadError(f"{shard.title}: {format_error(error)}") from error


def _check_unchanged(shard: Shard) -> None:
    if current_fingerprint(shard.file) != shard.file.fingerprint:
        raise ChangedError(f"{shard.file.name}: the file was changed while the job ran")
