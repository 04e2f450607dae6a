"""Batch scoring as a Python function: files or a table in, predictions out, each row exactly once.

Invariant: when `score` returns without failures, the output holds every row of the input, scored or rejected. Until
then it holds whole shards of that job only, and calling `score` again resumes the job.
"""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from service.engine.sessions.device import DeviceSetting, resolve_device
from service.manifest import Manifest
from service.scoring.engines.cluster import cluster_options
from service.scoring.engines.engine import Cancellation
from service.scoring.execution import execute, finished_result
from service.scoring.input.arrow_table import Inputs, input_paths
from service.scoring.input.files import InputFile, current_fingerprint
from service.scoring.input.query import NAME, Query, parse_query
from service.scoring.input.tables import list_inputs
from service.scoring.job import Format, Job, ScoringError, SinkFormat, TextOptions
from service.scoring.job_options import detect_batch, resolve_job
from service.scoring.model import read_manifest, resolve_version
from service.scoring.output.ledger import Ledger, open_folder
from service.scoring.plan import format_error
from service.scoring.progress import Progress
from service.scoring.result import Result, check_result, in_python
from service.scoring.storage.location import Location, exact_location, parse_location
from service.scoring.watch.exporter import Pushgateway, TextFile
from service.scoring.watch.reporter import Display, Report, Reporter
from service.scoring.watch.status import ProgressFile

GRACE_S = 20.0


def score(
    model: str,
    inputs: Inputs,
    output: str | Path,
    *,
    query: str | None = None,
    bundles: str | Path | None = None,
    engine: Literal["local", "ray"] = "local",
    ray_address: str | None = None,
    ray_runtime_env: Mapping[str, Any] | str | Path | None = None,
    workers: int | None = None,
    device: DeviceSetting = "auto",
    input_format: Format | None = None,
    output_format: SinkFormat | None = None,
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
    where: str | None = None,
    sample: float | None = None,
    sample_seed: int = 0,
    verify: bool = False,
    max_rejects: float = 0.0,
    check: bool = True,
    display: Display = "none",
    on_progress: Report | None = None,
    cancel: threading.Event | None = None,
    grace_s: float = GRACE_S,
    metrics_file: str | Path | None = None,
    pushgateway: str | None = None,
) -> Result:
    """Score the rows of some files, or of a pyarrow Table, with the model NAME or NAME@VERSION into a folder.

    `query` asks the database that `inputs` names. `where`, a condition on input columns, and `sample`, a share of the
    rows, leave the others out.

    `columns` maps fields of the task to columns; `request` sets fields of its request for every row (top_k, ...).
    `output_format` is parquet by default, and jsonl for an OpenAI batch. `bundles` is by default the folder in
    EKIBEN_BUNDLES, else `bundles`. `verify` compares the files of a job that was run before by their hashes, not only
    by their sizes. `on_progress` is called twice a second. When `cancel` is set the job ends: shards that are being
    scored have `grace_s` seconds to be committed. The engine ray runs on the cluster of `ray_address` or RAY_ADDRESS,
    else on one of this machine alone, in the runtime environment `ray_runtime_env`: a mapping, JSON, or a file.
    `metrics_file` and `pushgateway` (a URL) receive the progress as Prometheus metrics.

    Raises ScoringError if the job cannot start or the folder holds another job. With `check`, raises JobFailedError if
    the job fails, is cancelled, or rejects more than the share `max_rejects` of its rows.
    """
    root = Path(bundles or os.environ.get("EKIBEN_BUNDLES") or "bundles")
    try:
        cluster = cluster_options(engine, ray_address, ray_runtime_env)
        with input_paths(inputs) as paths:
            job, manifest, files = _resolve(
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
                verify=verify,
                device=resolve_device(device),
                workers=workers,
            )
            exporters = _exporters(job, metrics_file, pushgateway)
            cancellation = Cancellation(cancel or threading.Event(), grace_s)

            def watch(ledger: Ledger) -> Reporter:
                reports: list[Report] = [ProgressFile(ledger), *exporters]
                title = f"{job.model} {job.version}"
                return Reporter(title, Progress(), display=display, reports=reports, on_progress=on_progress)

            engine_options: dict[str, Any] = {"engine": engine, "workers": workers, "cluster": cluster}
            result = _run(job, manifest, files, watch, cancellation=cancellation, **engine_options)
        if check:
            check_result(result, max_rejects)
        return result
    except ScoringError as error:
        if check:
            error.args = (in_python(str(error)),)
        raise


def _resolve(
    model: str,
    paths: list[str],
    root: Path,
    *,
    input_format: Format | None,
    output: str | Path,
    query: str | None,
    output_format: SinkFormat | None,
    shard_rows: int | None,
    workers: int | None,
    **options: Any,
) -> tuple[Job, Manifest, Sequence[InputFile]]:
    """Return the job with every default, the manifest of its model, and the files of its input."""
    for option, number in (("workers", workers), ("shard-rows", shard_rows)):
        if number is not None and number < 1:
            raise ScoringError(f"--{option} {number}: expected at least 1")
    place = parse_location(str(output), option="--output")
    open_folder(place).close()
    asked = parse_query(paths, query)
    name, version = resolve_version(model, root)
    manifest = read_manifest(root, name, version)
    text_options = TextOptions(**{name: options[name] for name in TextOptions.model_fields})
    listed = (
        list_inputs(paths, output=output, input_format=input_format)
        if asked is None
        else [_query_result(asked, place, verify=options["verify"])]
    )
    files = detect_batch(listed, input_format, text_options)
    job = resolve_job(
        manifest,
        files,
        bundles=root.absolute(),
        inputs=tuple(paths) if asked is None else (),
        query="" if asked is None else asked.identity,
        output=place.uri,
        sink=output_format or ("jsonl" if files[0].format == "openai" else "parquet"),
        shard_rows=shard_rows,
        **options,
    )
    return job, manifest, files


def _query_result(query: Query, output: Location, *, verify: bool) -> InputFile:
    """The stored result of the query; asks the database if there is none."""
    try:
        with closing(Ledger(output.uri, verify=verify)) as ledger:
            result = ledger.query_result(query.identity, query.write)
        file = InputFile(uri=result.uri, name=NAME, format="arrow", size=0, fingerprint="")
        return replace(file, fingerprint=current_fingerprint(file))
    except OSError as error:
        raise ScoringError(f"--output {output}: {format_error(error)}") from error


def _run(
    job: Job,
    manifest: Manifest,
    files: Sequence[InputFile],
    watch: Callable[[Ledger], Reporter],
    *,
    cancellation: Cancellation,
    **engine_options: Any,
) -> Result:
    try:
        with closing(Ledger(job.output, verify=job.verify)) as ledger:
            ledger.open_job(job, [file.name for file in files])
            if (finished := finished_result(job, files, ledger)) is not None:
                return finished
            ledger.resume()
            return execute(
                job,
                manifest,
                files,
                ledger,
                reporter=watch(ledger),
                cancellation=cancellation,
                **engine_options,
            )
    except OSError as error:
        raise ScoringError(f"--output {exact_location(job.output)}: {format_error(error)}") from error


def _exporters(job: Job, metrics_file: str | Path | None, pushgateway: str | None) -> list[Report]:
    labels = {"model": job.model, "output": str(exact_location(job.output))}
    exporters: list[Report] = []
    if metrics_file is not None:
        exporters.append(TextFile(Path(metrics_file), **labels))
    if pushgateway is not None:
        exporters.append(Pushgateway(pushgateway, **labels))
    return exporters
