"""Resolves a command to its jobs: one, or one for each model of a pass.

Invariant: a job of a pass is the job that the command would be with its model and its output alone; only the rows of a
shard, unless they are given, are the fewest of the defaults of all models.
"""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from service.engine.sessions.device import DeviceSetting, resolve_device
from service.manifest import Manifest
from service.scoring.input.fields import fields_of
from service.scoring.input.files import InputFile, current_fingerprint, file_system
from service.scoring.input.query import NAME, Query, parse_query
from service.scoring.input.tables import list_inputs
from service.scoring.job import Format, Job, ScoringError, SinkFormat, TextOptions
from service.scoring.job_options import default_shard_rows, detect_batch, request_fields, resolve_job
from service.scoring.model import read_manifest, resolve_version
from service.scoring.output.growth.registry import InputRegistry, check_growing
from service.scoring.output.ledger import Ledger, open_folder
from service.scoring.output.tables.append import parse_table
from service.scoring.passes.folders import check_holds_no_job, job_names
from service.scoring.plan import format_error
from service.scoring.storage.location import Location, parse_location


@dataclass(frozen=True, kw_only=True)
class ResolvedJob:
    """A job with every default, the manifest of its model, and the files of its input."""

    name: str
    job: Job
    manifest: Manifest
    files: Sequence[InputFile]


def resolve_jobs(
    model: str | Sequence[str],
    paths: list[str],
    root: Path,
    *,
    input_format: Format | None,
    output: str | Path,
    query: str | None,
    output_format: SinkFormat | None,
    append_to: str | None,
    columns: Mapping[str, str],
    request: Mapping[str, Any],
    shard_rows: int | None,
    workers: int | None,
    device: DeviceSetting | None,
    **options: Any,
) -> list[ResolvedJob]:
    """Return the jobs of the models; several models, or a sequence of one, write below the output."""
    for option, number in (("workers", workers), ("shard-rows", shard_rows)):
        if number is not None and number < 1:
            raise ScoringError(f"--{option} {number}: expected at least 1")
    place = parse_location(str(output), option="--output")
    open_folder(place).close()
    asked = parse_query(paths, query)
    versions = [resolve_version(one, root) for one in ([model] if isinstance(model, str) else model)]
    if not versions:
        raise ScoringError("--model: expected at least one model")
    names = job_names(versions)
    manifests = [read_manifest(root, *version) for version in versions]
    actual_device = resolve_device(device, allow_tf32=all(manifest.allows_tf32 for manifest in manifests))
    places = [place]
    if not isinstance(model, str):
        check_holds_no_job(place)
        places = [place.child(name) for name in names]
    text_options = TextOptions(**{name: options[name] for name in TextOptions.model_fields})
    registry = _read_registry(place, asked) if options["new_only"] else None
    if asked is None:
        every = list_inputs(paths, output=output, input_format=input_format)
        files = detect_batch(every if registry is None else registry.unscored(every), input_format, text_options)
        files_of = [files] * len(manifests)
        listed_of = files_of if registry is None else [every]
    else:
        files_of = listed_of = _query_results(asked, places, verify=options["verify"])
    if registry is not None:
        check_growing([*files_of[0], *listed_of[0]], limit=options["limit"])
    is_batch = files_of[0][0].format == "openai"
    _check_several(model, names, is_batch=is_batch, new_only=options["new_only"], append_to=append_to)
    _check_known(manifests, columns, request)
    jobs = []
    for manifest, name, job_place, files, listed in zip(manifests, names, places, files_of, listed_of, strict=True):
        has_one = len(manifests) == 1
        fields, settings = {field.name for field in fields_of(manifest)}, request_fields(manifest)
        try:
            job = resolve_job(
                manifest,
                files,
                bundles=root.absolute(),
                inputs=tuple(paths) if asked is None else (),
                query="" if asked is None else asked.identity,
                output=job_place.uri,
                append_to=None if append_to is None else parse_table(append_to, output=job_place.uri),
                sink=output_format or ("jsonl" if files[0].format == "openai" else "parquet"),
                columns={field: column for field, column in columns.items() if has_one or field in fields},
                request={field: value for field, value in request.items() if has_one or field in settings},
                shard_rows=shard_rows or min(map(default_shard_rows, manifests)),
                device=actual_device,
                **options,
            )
        except ScoringError as error:
            raise error if has_one else ScoringError(f"--model {name}: {error}") from error
        job = job if registry is None else registry.with_schema(job)
        jobs.append(ResolvedJob(name=name, job=job, manifest=manifest, files=listed))
    return jobs


def _check_several(
    model: str | Sequence[str], names: Sequence[str], *, is_batch: bool, new_only: bool, append_to: str | None
) -> None:
    """Raise ScoringError if there are several models and an option or the input needs a single one."""
    if is_batch and len(names) > 1:
        raise ScoringError(f"--model {names[1]}: an OpenAI batch is answered by one model: name one")
    for option, given in (("--new-only", new_only), ("--append-to", append_to is not None)):
        if given and not isinstance(model, str):
            raise ScoringError(f"{option}: takes one model: score each of {', '.join(names)} with a command of its own")


def _read_registry(output: Location, query: Query | None) -> InputRegistry:
    if query is not None:
        raise ScoringError("--new-only: a query is asked once for each --output")
    try:
        with closing(Ledger(output.uri)) as ledger:
            return InputRegistry(ledger)
    except OSError as error:
        raise ScoringError(f"--output {output}: {format_error(error)}") from error


def _check_known(manifests: Sequence[Manifest], columns: Mapping[str, str], request: Mapping[str, Any]) -> None:
    """Raise ScoringError for an option that none of several models has; `resolve_job` checks those of one model."""
    if len(manifests) == 1:
        return
    fields = dict.fromkeys(field.name for manifest in manifests for field in fields_of(manifest))
    settings = sorted({name for manifest in manifests for name in request_fields(manifest)})
    for name in columns:
        if name not in fields:
            raise ScoringError(f"--column {name}=…: no model has this field; the fields are {', '.join(fields)}")
    for name in request:
        if name not in settings:
            raise ScoringError(
                f"--set {name}: no model has this option; the options are {', '.join(settings) or 'none'}"
            )


def _query_results(query: Query, places: Sequence[Location], *, verify: bool) -> list[Sequence[InputFile]]:
    """The stored result of the query for each job; the database is asked once at most, and others get a copy."""
    results, stored = list[Sequence[InputFile]](), list[Location]()
    for place in places:
        write = partial(_copy, stored[0]) if stored else query.write
        try:
            with closing(Ledger(place.uri, verify=verify)) as ledger:
                stored.append(ledger.query_result(query.identity, write))
            file = InputFile(uri=stored[-1].uri, name=NAME, format="arrow", size=0, fingerprint="")
            results.append([replace(file, fingerprint=current_fingerprint(file))])
        except OSError as error:
            raise ScoringError(f"--output {place}: {format_error(error)}") from error
        # The name of a stored result has its hash.
        if len({PurePosixPath(result.path).name for result in stored}) > 1:
            raise ScoringError(
                f"--output {place} holds another result of the query than {places[0]}: score these models apart"
            )
    return results


def _copy(result: Location, path: Path) -> None:
    system, name = file_system(result.uri)
    with system.open_input_stream(name) as source, path.open("wb") as copy:
        shutil.copyfileobj(source, copy)
