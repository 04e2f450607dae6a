"""Runs the jobs of a pass: plans them, has an engine score what is missing, and finishes them.

Invariant: a result without failures covers every row of the input, scored or rejected. Until then an output holds whole
shards of its job only.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from service.bundle import read_distributions
from service.manifest import Manifest
from service.scoring.drift.picture import drift_picture
from service.scoring.engines.cluster import ClusterOptions
from service.scoring.engines.engine import Cancellation, EngineContext, EngineResult
from service.scoring.engines.local import run_local
from service.scoring.input.files import InputFile
from service.scoring.input.passed_over import count_passed_over
from service.scoring.job import LINE_FORMATS, Job, ScoringError
from service.scoring.output.growth.registry import InputRegistry
from service.scoring.output.ledger import Ledger
from service.scoring.output.partitions.sink import partition_types
from service.scoring.output.summary import confidence_histogram, encode, summarize
from service.scoring.output.tables.append import append_predictions
from service.scoring.passes.pass_plan import plan_pass
from service.scoring.plan import ReadError, SharedShard
from service.scoring.prefetch import prefetch
from service.scoring.progress import Progress
from service.scoring.result import Result
from service.scoring.storage.location import exact_location
from service.scoring.watch.reporter import Reporter

# Few, so that a worker finds the bytes of a shard still in the cache after the planner has hashed them.
PREFETCHED_SHARDS = 2
# How long a stopped job waits for the planner.
PLANNER_JOIN_TIMEOUT_S = 1.0


@dataclass(frozen=True, kw_only=True)
class OpenJob:
    """A job whose output is open. `registry` holds an input that grows; the job is then the only one of its pass."""

    job: Job
    manifest: Manifest
    files: Sequence[InputFile]
    ledger: Ledger
    registry: InputRegistry | None = None


def execute(
    jobs: Sequence[OpenJob],
    *,
    place: str,
    engine: str,
    workers: int | None,
    cluster: ClusterOptions,
    reporter: Reporter,
    cancellation: Cancellation,
) -> list[Result]:
    """Score every row that is not committed. `place` holds the outputs of all jobs, and is no input.

    The files of the first job, which are equal to those of the others, are read.
    """
    files = jobs[0].files
    started, progress, shared = time.monotonic(), reporter.progress, [one.job for one in jobs]
    passed_over = count_passed_over(shared[0].inputs, files, output=exact_location(place))
    planned = [_PlannedTotals(passed_over=Counter(passed_over), registry=one.registry) for one in jobs]
    for totals in planned:
        totals.add_scored(progress)
    read_errors = list[str]()
    pending = _pending_shards(jobs, files, progress, planned, read_errors)
    context = EngineContext(progress=progress, message=reporter.message, cancellation=cancellation, cluster=cluster)
    with reporter, prefetch(pending, PREFETCHED_SHARDS, join_timeout_s=PLANNER_JOIN_TIMEOUT_S) as shards:
        outcome = ENGINES[engine](shared, shards, workers=workers, context=context)
    seconds = time.monotonic() - started
    failures = (*read_errors, *outcome.failures)
    results = []
    for number, (one, totals) in enumerate(zip(jobs, planned, strict=True)):
        result = Result(
            uri=one.job.output,
            sink=one.job.sink,
            partitions=partition_types(one.job),
            summary=None,
            failures=failures,
            computed=outcome.computed[number],
            seconds=seconds,
            dropped=outcome.dropped,
        )
        is_complete = not failures and not outcome.stopped
        results.append(_finish(one, result, totals, reporter.message) if is_complete else result)
    return results


def _finish(one: OpenJob, result: Result, planned: "_PlannedTotals", message: Callable[[str], None]) -> Result:
    """Write what a finished job has, once its records cover its plan."""
    job, ledger, registry, seconds = one.job, one.ledger, one.registry, result.seconds
    if registry is not None:
        registry.check_alone()
    num_files = len(one.files) if registry is None else len(registry.scored)
    distributions = read_distributions(job.bundles / job.model / job.version, one.manifest)
    summary = summarize(
        job, one.manifest, num_files, ledger.records(), planned.passed_over, distributions=distributions
    )
    planned.check_complete(job, summary)
    if registry is not None:
        summary["input_changes"] = {"changed": registry.changed, "deleted": registry.deleted}
    timing = {"rows": result.computed, "seconds": seconds, "rows_per_s": result.computed / seconds}
    documents = {"summary.json": encode(summary), "timing.json": encode(timing)}
    if registry is not None:
        documents |= registry.documents()
    if job.append_to is not None:
        increments = None if registry is None else registry.increments
        documents |= append_predictions(job, one.manifest, ledger, increments, message)
    pictures = {"confidence.png": confidence_histogram(summary)}
    if summary["drift"] is not None:
        pictures["drift.png"] = drift_picture(summary)
    fingerprints = {file.name: file.fingerprint for file in one.files}
    ledger.finish({**documents, **pictures}, fingerprints)
    return replace(result, summary=summary)


def finished_result(job: Job, files: Sequence[InputFile], ledger: Ledger) -> Result | None:
    """Return the result of a job that was finished before with this input, or None."""
    if not ledger.is_finished({file.name: file.fingerprint for file in files}):
        return None
    return Result(uri=job.output, sink=job.sink, partitions=partition_types(job), summary=ledger.summary())


@dataclass(kw_only=True)
class _PlannedTotals:
    """The totals of the plan of a job so far. `complete`: the plan reached its end.

    `registry` holds an input that grows.
    """

    shards: int = 0
    rows: int = 0
    complete: bool = False
    passed_over: Counter[str] = field(default_factory=Counter)
    registry: InputRegistry | None = None

    def add_scored(self, progress: Progress) -> None:
        """Count the files of an input that grows that are scored already."""
        if self.registry is not None:
            self.passed_over += self.registry.passed_over
            for entry in self.registry.scored.values():
                self.shards, self.rows = self.shards + entry.shards, self.rows + entry.rows
                progress.add_planned(entry.rows, committed=True)

    def check_complete(self, job: Job, summary: Mapping[str, Any]) -> None:
        """Raise ScoringError unless the summary covers everything that was planned."""
        fewest_rows = 0 if job.input_format in LINE_FORMATS else self.rows
        rows_match = fewest_rows <= summary["rows"] + summary["filtered"] <= self.rows
        if not (self.complete and rows_match and summary["shards"] == self.shards):
            raise ScoringError(
                f"the job is not done: {exact_location(job.output)} holds {summary['shards']} of {self.shards} planned "
                f"shards and {summary['rows']} of {self.rows} planned rows"
                f"{'' if self.complete else '; the plan is incomplete'}"
            )


def _pending_shards(
    jobs: Sequence[OpenJob],
    files: Sequence[InputFile],
    progress: Progress,
    planned: Sequence[_PlannedTotals],
    read_errors: list[str],
) -> Iterator[SharedShard | None]:
    """Yield the shards of the plan for the jobs that have not committed them; None for one that all of them have.

    Counts everything in `planned`, and collects why files could not be read.
    """
    registry = jobs[0].registry
    before, numbers = planned[0].rows, None if registry is None else registry.numbers
    for item in plan_pass([one.job for one in jobs], files if registry is None else registry.pending, numbers):
        if isinstance(item, ReadError):
            read_errors += [str(item)] if str(item) not in read_errors else []
        elif not isinstance(item, SharedShard):
            for number in item.jobs:
                jobs[number].ledger.check_planned(item)
                planned[number].passed_over.update(item.passed_over)
            if registry is not None:
                registry.add_scored(item, planned[0].rows - before)
            before = planned[0].rows
        else:
            for number in item.shards:
                planned[number].shards += 1
                planned[number].rows += item.first.span.rows
            absent = {
                number: shard for number, shard in item.shards.items() if jobs[number].ledger.committed(shard) is None
            }
            progress.add_planned(item.first.span.rows, committed=not absent)
            yield SharedShard(shards=absent) if absent else None
    for totals in planned:
        totals.complete = True
    progress.end_plan()


def _run_ray(
    jobs: Sequence[Job], shards: Iterator[SharedShard], *, workers: int | None, context: EngineContext
) -> EngineResult:
    try:
        from service.scoring.engines.ray import run_ray  # noqa: PLC0415 - ray is an extra
    except ModuleNotFoundError as error:
        raise ScoringError(f"--engine ray needs the dependency group `ray`: {error}") from error
    return run_ray(jobs, shards, workers=workers, context=context)


ENGINES: dict[str, Callable[..., EngineResult]] = {"local": run_local, "ray": _run_ray}
