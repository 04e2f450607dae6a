"""Runs a job: plans it, has an engine score what is missing, and finishes it.

Invariant: a result without failures covers every row of the input, scored or rejected. Until then the output holds
whole shards of that job only.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from service.manifest import Manifest
from service.scoring.engines.cluster import ClusterOptions
from service.scoring.engines.engine import Cancellation, EngineContext, EngineResult
from service.scoring.engines.local import run_local
from service.scoring.input.files import InputFile
from service.scoring.input.passed_over import count_passed_over
from service.scoring.job import LINE_FORMATS, Job, ScoringError
from service.scoring.output.ledger import Ledger
from service.scoring.output.summary import confidence_histogram, encode, summarize
from service.scoring.plan import ReadError, Shard, plan
from service.scoring.prefetch import prefetch
from service.scoring.progress import Progress
from service.scoring.result import Result
from service.scoring.storage.location import exact_location
from service.scoring.watch.reporter import Reporter

# Few, so that a worker finds the bytes of a shard still in the cache after the planner has hashed them.
PREFETCHED_SHARDS = 2
# How long a stopped job waits for the planner.
PLANNER_JOIN_TIMEOUT_S = 1.0


def execute(
    job: Job,
    manifest: Manifest,
    files: Sequence[InputFile],
    ledger: Ledger,
    *,
    engine: str,
    workers: int | None,
    cluster: ClusterOptions,
    reporter: Reporter,
    cancellation: Cancellation,
) -> Result:
    """Score every row that is not committed; the ledger belongs to the job."""
    started, progress = time.monotonic(), reporter.progress
    planned = _PlannedTotals(passed_over=count_passed_over(job.inputs, files, output=exact_location(job.output)))
    pending = _pending_shards(job, files, ledger, progress, planned)
    context = EngineContext(progress=progress, message=reporter.message, cancellation=cancellation, cluster=cluster)
    with reporter, prefetch(pending, PREFETCHED_SHARDS, join_timeout_s=PLANNER_JOIN_TIMEOUT_S) as shards:
        outcome = ENGINES[engine](job, shards, workers=workers, context=context)
    seconds = time.monotonic() - started
    failures = (*planned.read_errors, *outcome.failures)
    reached: dict[str, Any] = {"uri": job.output, "sink": job.sink, "computed": progress.rows, "seconds": seconds}
    if failures or outcome.stopped:
        return Result(**reached, summary=None, failures=failures, dropped=outcome.dropped)
    summary = summarize(job, manifest, len(files), ledger.records(), planned.passed_over)
    planned.check_complete(job, summary)
    timing = {"rows": progress.rows, "seconds": seconds, "rows_per_s": progress.rows / seconds}
    documents = {"summary.json": encode(summary), "timing.json": encode(timing)}
    fingerprints = {file.name: file.fingerprint for file in files}
    ledger.finish({**documents, "confidence.png": confidence_histogram(summary)}, fingerprints)
    return Result(**reached, summary=summary)


def finished_result(job: Job, files: Sequence[InputFile], ledger: Ledger) -> Result | None:
    """Return the result of a job that was finished before with this input, or None."""
    if not ledger.is_finished({file.name: file.fingerprint for file in files}):
        return None
    return Result(uri=job.output, sink=job.sink, summary=ledger.summary())


@dataclass(kw_only=True)
class _PlannedTotals:
    """The totals of the plan so far, and the files that could not be read. `complete`: the plan reached its end."""

    read_errors: list[str] = field(default_factory=list)
    shards: int = 0
    rows: int = 0
    complete: bool = False
    passed_over: Counter[str] = field(default_factory=Counter)

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
    job: Job, files: Sequence[InputFile], ledger: Ledger, progress: Progress, planned: _PlannedTotals
) -> Iterator[Shard | None]:
    """Yield each shard of the plan that is not committed, and None for one that is; count everything in `planned`."""
    for item in plan(job, files):
        if isinstance(item, ReadError):
            planned.read_errors.append(str(item))
        elif not isinstance(item, Shard):
            ledger.check_planned(item)
            planned.passed_over.update(item.passed_over)
        else:
            planned.shards, planned.rows = planned.shards + 1, planned.rows + item.span.rows
            is_committed = ledger.committed(item) is not None
            progress.add_planned(item.span.rows, committed=is_committed)
            yield None if is_committed else item
    planned.complete = True
    progress.end_plan()


def _run_ray(job: Job, shards: Iterator[Shard], *, workers: int | None, context: EngineContext) -> EngineResult:
    try:
        from service.scoring.engines.ray import run_ray  # noqa: PLC0415 - ray is an extra
    except ModuleNotFoundError as error:
        raise ScoringError(f"--engine ray needs the dependency group `ray`: {error}") from error
    return run_ray(job, shards, workers=workers, context=context)


ENGINES: dict[str, Callable[..., EngineResult]] = {"local": run_local, "ray": _run_ray}
