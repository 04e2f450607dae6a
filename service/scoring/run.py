"""Batch scoring as a Python function: files or a table in, predictions out, each row exactly once.

Invariant: when `score` returns without failures, the output holds every row of the input, scored or rejected. Until
then it holds whole shards of that job only, and calling `score` again resumes the job.
"""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, overload

import pyarrow as pa

from service.engine.sessions.device import DeviceSetting
from service.scoring.engines.cluster import cluster_options
from service.scoring.engines.engine import Cancellation
from service.scoring.execution import OpenJob, execute, finished_result
from service.scoring.input.arrow_table import Inputs, input_paths
from service.scoring.job import Format, ScoringError, SinkFormat
from service.scoring.output.growth.registry import InputRegistry
from service.scoring.output.ledger import Ledger
from service.scoring.output.tables.append import check_table
from service.scoring.passes.resolution import ResolvedJob, resolve_jobs
from service.scoring.plan import format_error
from service.scoring.progress import Progress
from service.scoring.result import Result, check_result, in_python
from service.scoring.storage.location import exact_location, parse_location
from service.scoring.watch.exporter import Pushgateway, TextFile
from service.scoring.watch.reporter import Display, Report, Reporter
from service.scoring.watch.status import ProgressFile

GRACE_S = 20.0


class Options(TypedDict, total=False):
    """The options of `score`."""

    query: str | None
    bundles: str | Path | None
    engine: Literal["local", "ray"]
    ray_address: str | None
    ray_runtime_env: Mapping[str, Any] | str | Path | None
    workers: int | None
    device: DeviceSetting | None
    input_format: Format | None
    output_format: SinkFormat | None
    columns: Mapping[str, str] | None
    id_column: str | None
    keep: Sequence[str]
    partition_by: Sequence[str]
    header: bool
    delimiter: str | None
    quote: str | None
    escape: str | None
    encoding: str | None
    escape_formulas: bool
    request: Mapping[str, Any] | None
    shard_rows: int | None
    limit: int | None
    where: str | None
    sample: float | None
    sample_seed: int
    append_to: str | Path | None
    new_only: bool
    ignore_changed: bool
    verify: bool
    max_rejects: float
    check: bool
    display: Display
    on_progress: Report | None
    cancel: threading.Event | None
    grace_s: float
    metrics_file: str | Path | None
    pushgateway: str | None


@overload
def score(model: str, inputs: Inputs, output: str | Path, **options: Unpack[Options]) -> Result: ...


@overload
def score(
    model: list[str] | tuple[str, ...], inputs: Inputs, output: str | Path, **options: Unpack[Options]
) -> dict[str, Result]: ...


def score(
    model: str | list[str] | tuple[str, ...],
    inputs: Inputs,
    output: str | Path,
    *,
    query: str | None = None,
    bundles: str | Path | None = None,
    engine: Literal["local", "ray"] = "local",
    ray_address: str | None = None,
    ray_runtime_env: Mapping[str, Any] | str | Path | None = None,
    workers: int | None = None,
    device: DeviceSetting | None = None,
    input_format: Format | None = None,
    output_format: SinkFormat | None = None,
    columns: Mapping[str, str] | None = None,
    id_column: str | None = None,
    keep: Sequence[str] = (),
    partition_by: Sequence[str] = (),
    header: bool = True,
    delimiter: str | None = None,
    quote: str | None = None,
    escape: str | None = None,
    encoding: str | None = None,
    escape_formulas: bool = False,
    request: Mapping[str, Any] | None = None,
    shard_rows: int | None = None,
    limit: int | None = None,
    where: str | None = None,
    sample: float | None = None,
    sample_seed: int = 0,
    append_to: str | Path | None = None,
    new_only: bool = False,
    ignore_changed: bool = False,
    verify: bool = False,
    max_rejects: float = 0.0,
    check: bool = True,
    display: Display = "none",
    on_progress: Report | None = None,
    cancel: threading.Event | None = None,
    grace_s: float = GRACE_S,
    metrics_file: str | Path | None = None,
    pushgateway: str | None = None,
) -> Result | dict[str, Result]:
    """Score the rows of some files, or of a pyarrow Table, with the model NAME or NAME@VERSION into a folder.

    A list of models is scored in one pass over the input, each into the folder NAME below `output` (NAME@VERSION if a
    name comes twice); the results have these names.

    `query` asks the database that `inputs` names. `where`, a condition on input columns, and `sample`, a share of the
    rows, leave the others out. `partition_by` puts the predictions into folders of the values of columns. `append_to`
    is a Delta or Iceberg table that the predictions are appended to. `new_only`: the folder of the input grows, and
    each call scores what is new.

    `columns` maps fields of the task to columns; `request` sets fields of its request for every row (top_k, ...).
    `output_format` is parquet by default, and jsonl for an OpenAI batch. `bundles` is by default the folder in
    EKIBEN_BUNDLES, else `bundles`, and `device` that of EKIBEN_DEVICE, else `auto`. `verify` compares the files of a
    job that was run before by their hashes, not only by their sizes. `on_progress` is called twice a second. When
    `cancel` is set the job ends: shards that are being scored have `grace_s` seconds to be committed. The engine ray
    runs on the cluster of `ray_address` or RAY_ADDRESS, else on one of this machine, in the runtime environment
    `ray_runtime_env`: a mapping, JSON, or a file.
    `metrics_file` and `pushgateway` (a URL) receive the progress as Prometheus metrics.

    Raises ScoringError if the job cannot start or the folder holds another job. With `check`, raises JobFailedError if
    the job fails, is cancelled, rejects more than the share `max_rejects` of its rows, or if files have changed since
    they were scored, unless `ignore_changed`.
    """
    if new_only and isinstance(inputs, pa.Table):
        raise ScoringError("new_only: a Table does not grow: write it to a folder")
    root = Path(bundles or os.environ.get("EKIBEN_BUNDLES") or "bundles")
    try:
        cluster = cluster_options(engine, ray_address, ray_runtime_env)
        with input_paths(inputs) as paths:
            jobs = resolve_jobs(
                model,
                paths,
                root,
                input_format=input_format,
                output=output,
                query=query,
                output_format=output_format,
                columns=dict(columns or {}),
                id_column=id_column,
                keep=tuple(keep),
                partition_by=tuple(partition_by),
                header=header,
                delimiter=delimiter,
                quote=quote,
                escape=escape,
                encoding=encoding,
                escape_formulas=escape_formulas,
                request=dict(request or {}),
                shard_rows=shard_rows,
                limit=limit,
                where=where,
                sample=sample,
                sample_seed=sample_seed,
                append_to=None if append_to is None else str(append_to),
                new_only=new_only,
                verify=verify,
                device=device,
                workers=workers,
            )
            place = parse_location(str(output), option="--output").uri
            exporters = _exporters(", ".join(one.name for one in jobs), place, metrics_file, pushgateway)
            cancellation = Cancellation(cancel or threading.Event(), grace_s)

            def watch(ledgers: Sequence[Ledger]) -> Reporter:
                reports: list[Report] = [*map(ProgressFile, ledgers), *exporters]
                title = ", ".join(f"{one.job.model} {one.job.version}" for one in jobs)
                return Reporter(title, Progress(), display=display, reports=reports, on_progress=on_progress)

            engine_options: dict[str, Any] = {"engine": engine, "workers": workers, "cluster": cluster}
            results = _run(jobs, place, watch, cancellation=cancellation, **engine_options)
        for one, result in zip(jobs, results, strict=True) if check else ():
            check_result(
                result, max_rejects, ignore_changed=ignore_changed, name="" if isinstance(model, str) else one.name
            )
        if isinstance(model, str):
            return results[0]
        return {one.name: result for one, result in zip(jobs, results, strict=True)}
    except ScoringError as error:
        if check:
            error.args = (in_python(str(error)),)
        raise


def _run(
    resolved: Sequence[ResolvedJob],
    place: str,
    watch: Callable[[Sequence[Ledger]], Reporter],
    *,
    cancellation: Cancellation,
    **engine_options: Any,
) -> list[Result]:
    """Return the result of each job; those that were finished before have one already."""
    try:
        with ExitStack() as ledgers:
            opened: list[OpenJob] = []
            for one in resolved:
                ledger = ledgers.enter_context(closing(Ledger(one.job.output, verify=one.job.verify)))
                if one.job.append_to is not None and not ledger.has_finished():
                    check_table(one.job, one.manifest)
                ledger.open_job(one.job, None if one.job.new_only else [file.name for file in one.files])
                opened.append(OpenJob(job=one.job, manifest=one.manifest, files=one.files, ledger=ledger))
            results = [finished_result(run.job, run.files, run.ledger) for run in opened]
            unfinished = [run for run, result in zip(opened, results, strict=True) if result is None]
            for run in unfinished:
                run.ledger.resume()
            unfinished = [_with_registry(run) for run in unfinished]
            if not unfinished:
                return [result for result in results if result is not None]
            executed = iter(
                execute(
                    unfinished,
                    place=place,
                    reporter=watch([run.ledger for run in unfinished]),
                    cancellation=cancellation,
                    **engine_options,
                )
            )
            return [result or next(executed) for result in results]
    except OSError as error:
        raise ScoringError(f"--output {exact_location(place)}: {format_error(error)}") from error


def _with_registry(run: OpenJob) -> OpenJob:
    """The job with the registry of its files, if its input grows."""
    if not run.job.new_only:
        return run
    registry = InputRegistry(run.ledger)
    registry.update(run.job, run.files)
    return replace(run, registry=registry)


def _exporters(models: str, place: str, metrics_file: str | Path | None, pushgateway: str | None) -> list[Report]:
    labels = {"model": models, "output": str(exact_location(place))}
    exporters: list[Report] = []
    if metrics_file is not None:
        exporters.append(TextFile(Path(metrics_file), **labels))
    if pushgateway is not None:
        exporters.append(Pushgateway(pushgateway, **labels))
    return exporters
