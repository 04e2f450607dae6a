"""Batch scoring as a Python function: files in, predictions out, each row exactly once.

Invariant: when `score` returns without failures, the output holds every row of the input, scored or rejected. Until
then it holds whole shards of that job only, and calling `score` again resumes the job.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from service.engine.sessions.device import DeviceSetting, resolve_device
from service.scoring.engines.engine import EngineResult
from service.scoring.engines.local import run_local
from service.scoring.input.files import InputFile
from service.scoring.input.passed_over import count_passed_over
from service.scoring.input.tables import list_inputs
from service.scoring.job import Format, Job, ScoringError, SinkFormat
from service.scoring.job_options import resolve_job
from service.scoring.model import read_manifest, resolve_version
from service.scoring.output.ledger import Ledger, open_folder
from service.scoring.output.summary import confidence_histogram, encode, summarize
from service.scoring.plan import ReadError, Shard, format_error, plan
from service.scoring.prefetch import prefetch
from service.scoring.progress import ProgressBar
from service.scoring.storage.location import exact_location, parse_location

# Few, so that a worker finds the bytes of a shard still in the cache after the planner has hashed them.
PREFETCHED_SHARDS = 2
# How long a stopped job waits for the planner.
PLANNER_JOIN_TIMEOUT_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Result:
    """`summary` is None if the job did not finish; `computed` counts the rows that the call scored or rejected."""

    summary: Mapping[str, Any] | None
    failures: tuple[str, ...]
    computed: int
    seconds: float

    @property
    def reject_share(self) -> float:
        return self.summary["rejected"] / max(self.summary["rows"], 1) if self.summary else 0.0


def score(
    model: str,
    inputs: Sequence[str | Path],
    output: str | Path,
    *,
    bundles: str | Path = "bundles",
    engine: Literal["local", "ray"] = "local",
    workers: int | None = None,
    device: DeviceSetting = "auto",
    input_format: Format | None = None,
    output_format: SinkFormat = "parquet",
    columns: Mapping[str, str] | None = None,
    id_column: str | None = None,
    keep: Sequence[str] = (),
    header: bool = True,
    delimiter: str | None = None,
    quote: str | None = None,
    escape: str | None = None,
    encoding: str | None = None,
    escape_formulas: bool = False,
    request: Mapping[str, Any] | None = None,
    shard_rows: int | None = None,
    limit: int | None = None,
    verify: bool = False,
    progress: bool = False,
) -> Result:
    """Score the rows of some files with the model NAME or NAME@VERSION and write the predictions to a folder.

    `columns` maps fields of the task to columns; `request` sets fields of its request for every row (top_k, ...).
    `verify` compares the files of a job that was run before by their hashes, not only by their sizes.
    Raises ScoringError if the job cannot start or the folder holds another job.
    """
    started = time.monotonic()
    for option, number in (("workers", workers), ("shard-rows", shard_rows)):
        if number is not None and number < 1:
            raise ScoringError(f"--{option} {number}: expected at least 1")
    place = parse_location(str(output), option="--output")
    open_folder(place).close()
    name, version = resolve_version(model, Path(bundles))
    manifest = read_manifest(Path(bundles), name, version)
    files = list_inputs([str(path) for path in inputs], output=output, input_format=input_format)
    job = resolve_job(
        manifest,
        files,
        bundles=Path(bundles).absolute(),
        inputs=tuple(str(path) for path in inputs),
        output=place.uri,
        sink=output_format,
        columns=dict(columns or {}),
        id_column=id_column,
        keep=tuple(keep),
        header=header,
        delimiter=delimiter,
        quote=quote,
        escape=escape,
        encoding=encoding,
        escape_formulas=escape_formulas,
        request=dict(request or {}),
        shard_rows=shard_rows,
        limit=limit,
        device=resolve_device(device),
        verify=verify,
    )
    try:
        with closing(Ledger(job.output, verify=verify)) as ledger:
            ledger.open_job(job, [file.name for file in files])
            fingerprints = {file.name: file.fingerprint for file in files}
            if ledger.is_finished(fingerprints):
                return Result(summary=ledger.summary(), failures=(), computed=0, seconds=time.monotonic() - started)
            ledger.resume()
            passed_over = count_passed_over(job.inputs, files, output=Path(place.path))
            planned = _PlannedTotals(passed_over=passed_over)
            with closing(ProgressBar(f"{name} {version}", visible=progress)) as bar:
                pending = _pending_shards(job, files, ledger, bar, planned)
                with prefetch(pending, PREFETCHED_SHARDS, join_timeout_s=PLANNER_JOIN_TIMEOUT_S) as shards:
                    result = ENGINES[engine](job, shards, workers=workers, report=bar)
            failures, seconds = (*planned.read_errors, *result.failures), time.monotonic() - started
            if failures or result.stopped:
                return Result(summary=None, failures=failures, computed=bar.rows, seconds=seconds)
            summary = summarize(job, manifest, len(files), ledger.records(), planned.passed_over)
            planned.check_complete(job, summary)
            timing = {"rows": bar.rows, "seconds": seconds, "rows_per_s": bar.rows / seconds}
            documents = {"summary.json": encode(summary), "timing.json": encode(timing)}
            ledger.finish({**documents, "confidence.png": confidence_histogram(summary)}, fingerprints)
            return Result(summary=summary, failures=(), computed=bar.rows, seconds=seconds)
    except OSError as error:
        raise ScoringError(f"--output {place}: {format_error(error)}") from error


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
        # Blank lines are planned, but they are not rows.
        fewest_rows = 0 if job.input_format in {"jsonl", "openai", "text"} else self.rows
        rows_match = fewest_rows <= summary["rows"] <= self.rows
        if not (self.complete and rows_match and summary["shards"] == self.shards):
            raise ScoringError(
                f"the job is not done: {exact_location(job.output)} holds {summary['shards']} of {self.shards} planned "
                f"shards and {summary['rows']} of {self.rows} planned rows"
                f"{'' if self.complete else '; the plan is incomplete'}"
            )


def _pending_shards(
    job: Job, files: Sequence[InputFile], ledger: Ledger, bar: ProgressBar, planned: _PlannedTotals
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
            if ledger.committed(item) is None:
                bar.add_planned(item.span.rows)
                yield item
            else:
                yield None
    planned.complete = True


def _run_ray(job: Job, shards: Iterator[Shard], *, workers: int | None, report: ProgressBar) -> EngineResult:
    try:
        from service.scoring.engines.ray import run_ray  # noqa: PLC0415 - ray is an extra
    except ModuleNotFoundError as error:
        raise ScoringError(f"--engine ray needs the dependency group `ray`: {error}") from error
    return run_ray(job, shards, workers=workers, report=report)


ENGINES: dict[str, Callable[..., EngineResult]] = {"local": run_local, "ray": _run_ray}
