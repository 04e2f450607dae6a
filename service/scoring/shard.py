"""Scores one shard, from reading its rows to the commit; every engine calls `score_shard`.

One thread reads ahead of the models and another of each job writes behind them, so that a worker spends its time in the
models. What jobs have in common is read, filtered and decoded once.
Invariant: what a job commits for a shard depends on the shard and that job alone.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import Any

import numpy as np

from service.bundle import open_manifest
from service.drift.distributions import CONFIDENCE_BINS, Counts, count_confidence
from service.engine.sessions.device import require_provider
from service.scoring.input.files import InputFile, current_fingerprint
from service.scoring.input.rows import Rows, Source
from service.scoring.job import Job
from service.scoring.model import load_bundle
from service.scoring.output.completions import completion_lines
from service.scoring.output.copied import with_copied
from service.scoring.output.join import join_predictions
from service.scoring.output.ledger import Ledger, Record
from service.scoring.output.local_folder import sha256_of
from service.scoring.output.partitions.sink import open_sink
from service.scoring.output.rejects import RejectFile
from service.scoring.plan import (
    READ_ERRORS,
    ChangedError,
    ReadError,
    Shard,
    SharedShard,
    format_error,
    read_spec,
    reading_of,
)
from service.scoring.prefetch import prefetch
from service.scoring.scorers import scorer_type
from service.scoring.scorers.scorer import Items
from service.scoring.selection.selection import select
from service.scoring.sources import SOURCES

PREFETCHED_CHUNKS = 2
# Rows and rejected rows that are done.
CountRows = Callable[[int, int], None]


def title_of(job: Job) -> str:
    """The job as messages name it that concern one of several."""
    return f"{job.model} {job.version}"


class ModelError(Exception):
    """An error of one of several models."""

    def __init__(self, job: Job, reason: Exception) -> None:
        super().__init__(str(reason))
        self.model, self.reason = title_of(job), reason


class JobContext:
    """A worker's state for one job: the model, and the ledger of its output."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.ledger = Ledger(job.output, verify=job.verify)
        self.model = load_bundle(job.bundles / job.model / job.version, job.device)
        self.scorer = scorer_type(self.model.manifest, job.input_format)(self.model, job.columns, job.request)
        self.num_labels = len(self.model.manifest.labels)

    def close(self) -> None:
        self.scorer.close()
        self.ledger.close()


class Context:
    """A worker's state between the shards of a pass: that of each job, and the input file, open for each reading."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        if jobs[0].device == "cuda":
            # The first session would decide, which may allow TF32 where the next one does not.
            manifests = [open_manifest(job.bundles / job.model / job.version) for job in jobs]
            require_provider("cuda", allow_tf32=all(manifest.allows_tf32 for manifest in manifests))
        self.jobs = [JobContext(job) for job in jobs]
        self._file: InputFile | None = None
        self._sources: dict[tuple[Any, ...], Source] = {}

    def source(self, job: Job, file: InputFile) -> Source:
        """The open file; that of the previous shard if it is the same file."""
        if self._file != file:
            self.close_sources()
            self._file = file
        reading = reading_of(job)
        if reading not in self._sources:
            self._sources[reading] = SOURCES[file.format](file, read_spec(job, file))
        return self._sources[reading]

    def close_sources(self) -> None:
        while self._sources:
            self._sources.popitem()[1].close()

    def close(self) -> None:
        self.close_sources()
        for job in self.jobs:
            job.close()


def score_shard(context: Context, shard: SharedShard, progress: CountRows) -> dict[int, int] | None:
    """Score and commit a shard for each job that has not committed it, and return the rows that this took by job.

    Returns None if another process holds a lock. `progress(rows, rejects)` is called after each chunk. Raises ReadError
    that names file and rows if the input cannot be read, OSError if the output cannot be written, and if there are
    several jobs, ModelError for the error of one. The jobs without a record have committed nothing of the shard then.
    """
    with ExitStack() as locks:
        for number, one in shard.shards.items():
            ledger = context.jobs[number].ledger
            if not ledger.try_lock(one):
                return None
            locks.callback(ledger.unlock, one)
        absent = {
            number: one for number, one in shard.shards.items() if context.jobs[number].ledger.committed(one) is None
        }
        return _score(context, absent, progress)


def _score(context: Context, shards: Mapping[int, Shard], progress: CountRows) -> dict[int, int]:
    by_reading: dict[tuple[Any, ...], list[int]] = {}
    for number in shards:
        by_reading.setdefault(reading_of(context.jobs[number].job), []).append(number)
    rejected = set[int]()
    with ExitStack() as stack:
        writers = {
            number: stack.enter_context(_ShardWriter(context.jobs[number], shard, is_shared=len(context.jobs) > 1))
            for number, shard in shards.items()
        }
        for group in by_reading.values():
            is_first = group[0] == min(shards)
            job, shard = context.jobs[group[0]].job, shards[group[0]]
            with prefetch(_read_rows(context, job, shard), PREFETCHED_CHUNKS) as chunks:
                for rows in chunks:
                    before, read = len(rejected), dict[str, Items]()
                    for number in group:
                        rejected.update(int(rows.numbers[i]) for i in writers[number].add(rows, read))
                    count = len(rows.numbers) + rows.left_out if is_first else 0
                    progress(count, len(rejected) - before)
    return {number: writer.commit() for number, writer in writers.items()}


class _ShardWriter(AbstractContextManager["_ShardWriter"]):
    """The parts of a shard of one job, until they are committed."""

    def __init__(self, context: JobContext, shard: Shard, *, is_shared: bool) -> None:
        job, ledger = context.job, context.ledger
        self._context, self._shard, self._is_shared = context, shard, is_shared
        self._sink = open_sink(job, ledger, shard)
        self._rejects = RejectFile(
            ledger.work_path(shard, "rejects"), job, shard, model=title_of(job) if is_shared else ""
        )
        self._files = ExitStack()
        self._to_table = completion_lines if job.answers_as_openai else join_predictions
        # Integers, so that their sums over shards do not depend on the order of shards.
        self._num_filtered = self._num_scored = 0
        self._labels = np.zeros(context.num_labels, np.int64)
        self._confidence = np.zeros(CONFIDENCE_BINS, np.int64)
        self._drift: dict[str, Counts] = {}

    def __enter__(self) -> "_ShardWriter":
        self._files.enter_context(self._rejects)
        self._files.enter_context(self._sink)
        return self

    def __exit__(self, *error: Any) -> None:
        with self._naming_errors():
            self._files.__exit__(*error)

    def add(self, rows: Rows, read: MutableMapping[str, Items]) -> Collection[int]:
        """Score and write rows; return the indexes of those that were rejected."""
        self._num_filtered += rows.left_out
        if not len(rows.numbers):
            return ()
        with self._naming_errors():
            scored = self._context.scorer.score(rows, read)
            self._sink.write(self._to_table(self._context.job, self._shard.file, rows, scored))
            self._rejects.write(rows, scored)
        self._num_scored += len(scored.indexes)
        self._labels += np.bincount(scored.labels, minlength=len(self._labels))
        self._confidence += count_confidence(scored.confidence)
        for name, counts in scored.drift.items():
            self._drift[name] = self._drift.get(name, 0) + counts
        return scored.faults

    def commit(self) -> int:
        """Commit the shard and return its rows."""
        job, shard, rejects = self._context.job, self._shard, self._rejects
        parts = self._sink.parts(f"part-{shard.name}.{job.sink}")
        if rejects.count:
            parts[f"{rejects.folder}/part-{shard.name}.jsonl"] = rejects.path
        record = Record(
            key=shard.key,
            file=shard.file.name,
            first_row=shard.span.first_row,
            scored=self._num_scored,
            rejected=rejects.count,
            filtered=self._num_filtered,
            labels=self._labels.tolist(),
            confidence=self._confidence.tolist(),
            parts={name: sha256_of(path) for name, path in parts.items()},
            sizes={name: path.stat().st_size for name, path in parts.items()},
            drift={name: counts.tolist() for name, counts in self._drift.items()},
        )
        with self._naming_errors():
            self._context.ledger.commit(shard, record, parts)
        return self._num_scored + rejects.count + self._num_filtered

    @contextmanager
    def _naming_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not self._is_shared or isinstance(error, ModelError):
                raise
            raise ModelError(self._context.job, error) from error


def _read_rows(context: Context, job: Job, shard: Shard) -> Iterator[Rows]:
    """Read the rows of a shard. Raises ReadError if the file cannot be read, ChangedError if it is not as planned."""
    is_filtered = job.where is not None or job.sample is not None
    try:
        for rows in context.source(job, shard.file).read(shard.span):
            within = rows.numbered_below(shard.span.first_row + shard.span.rows)
            if is_filtered:
                within = select(job, shard.file, within)
            yield with_copied(job, shard.file, within)
        _check_unchanged(shard)
    except ChangedError:
        context.close_sources()
        raise
    except READ_ERRORS as error:
        context.close_sources()
        with suppress(OSError):
            _check_unchanged(shard)
        raise ReadError(f"{shard.title}: {format_error(error)}") from error


def _check_unchanged(shard: Shard) -> None:
    if current_fingerprint(shard.file) != shard.file.fingerprint:
        raise ChangedError(f"{shard.file.name}: the file was changed while the job ran")
