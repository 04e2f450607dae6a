"""Resolves the options of a job: columns, defaults, and the fields of the task's request."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from service.errors import EkibenError
from service.manifest import Manifest
from service.scoring.input.fields import map_columns
from service.scoring.input.files import InputFile
from service.scoring.job import Format, Job, ScoringError
from service.scoring.plan import format_error
from service.scoring.sources import SOURCES
from service.scoring.sources.openai import check_custom_ids, is_batch
from service.tasks import TASKS
from service.tasks.body import parse_request
from service.tasks.openai.completions import CompletionRequest
from service.tasks.openai.fields import parse_fields
from service.tasks.predict import accepted_fields
from service.tasks.readers import READERS

# Rows of a shard by pair of reader and head; SEQUENCE_SHARD_ROWS for the others.
SHARD_ROWS = {
    "image -> labels": 16384,
    "text -> language-model": 64,
    "tensors -> image": 256,
    "image -> image": 256,
    "image -> tensors": 256,
    "tensors -> tensors": 256,
}
SEQUENCE_SHARD_ROWS = 4096
BATCH_COLUMNS = {name: name for name in ("url", "body")}
BATCH_FIELDS = frozenset({"max_tokens", "temperature", "top_k", "top_p", "stop", "seed"})
TEXT_FIELDS = frozenset({"max_tokens", "temperature", "top_k", "top_p", "stop", "logprobs", "seed"})


def request_fields(manifest: Manifest) -> frozenset[str]:
    """The options of a job: those of the task's request that are the same for all rows."""
    if manifest.task == "generate":
        return TEXT_FIELDS if manifest.head.kind == "language-model" else frozenset({"seed"})
    reader = READERS[manifest.reader.kind]
    of_rows = {reader.field, *reader.options(manifest)} - {"truncate"}
    return frozenset(accepted_fields(manifest)) - of_rows


def resolve_job(
    manifest: Manifest,
    files: Sequence[InputFile],
    *,
    columns: dict[str, str],
    id_column: str | None,
    keep: tuple[str, ...],
    request: dict[str, Any],
    shard_rows: int | None,
    **options: Any,
) -> Job:
    """Fill in the defaults of a job and check its options against the first file. Raises ScoringError."""
    first, file_columns = _first_with_columns(files, header=options["header"])
    answers_batch = first.format == "openai"
    if answers_batch:
        _check_batch(manifest, request)
        id_column = id_column or "custom_id"
    else:
        _check_request(manifest, request)
    if answers_batch and options["sink"] == "jsonl" and keep:
        raise ScoringError("--keep: OpenAI's output has no place for columns; choose --output-format parquet or csv")
    copied = [*([id_column] if id_column else []), *keep]
    for name in copied:
        if name not in {*file_columns, *first.partitions, "*"} and first.format != "jsonl":
            raise ScoringError(f"no column {name!r} in {first.name}; available: {', '.join(map(repr, file_columns))}")
    try:
        return Job(
            model=manifest.name,
            version=manifest.version,
            input_format=first.format,
            columns=BATCH_COLUMNS
            if answers_batch
            else map_columns(manifest, columns, file_columns, reserved=copied, sparse=first.format == "jsonl"),
            id_column=id_column,
            keep=keep,
            request=request,
            shard_rows=shard_rows or SHARD_ROWS.get(manifest.pair, SEQUENCE_SHARD_ROWS),
            **options,
        )
    except ValidationError as error:
        fault = error.errors()[0]
        raise ScoringError(f"option {fault['loc'][0]}: {fault['msg']}, got {fault['input']!r}") from error


def _first_with_columns(files: Sequence[InputFile], *, header: bool) -> tuple[InputFile, tuple[str, ...]]:
    """The first file that is not empty, and its columns; the first file if all are empty."""
    for file in files:
        try:
            columns = SOURCES[file.format].columns(file, header=header)
        except (OSError, EOFError, ValueError) as error:
            raise ScoringError(f"{file.name}: {format_error(error)}") from error
        if columns:
            return file, columns
    return files[0], ()


def detect_batch(files: Sequence[InputFile], input_format: Format | None) -> Sequence[InputFile]:
    """Return the files as those of an OpenAI batch if they are JSON Lines with its keys, unless the job names a format.

    Raises ScoringError if a `custom_id` is given twice.
    """
    if input_format is None and files[0].format == "jsonl":
        _, columns = _first_with_columns(files, header=True)
        if is_batch(columns):
            files = [replace(file, format="openai") for file in files]
    if files[0].format == "openai":
        check_custom_ids(files)
    return files


def _check_batch(manifest: Manifest, request: Mapping[str, Any]) -> None:
    """Raise ScoringError unless the model answers batches, and these fields may hold for all of their requests."""
    if manifest.head.kind != "language-model":
        raise ScoringError(f"--input-format openai: {manifest.name} generates no texts")
    if unknown := sorted(set(request) - BATCH_FIELDS):
        known = ", ".join(sorted(BATCH_FIELDS))
        raise ScoringError(f"--set {unknown[0]}: for all requests of an OpenAI batch it may be {known}")
    try:
        parse_fields(CompletionRequest, {"model": manifest.name, **request})
    except EkibenError as error:
        raise ScoringError(f"--set {error.detail.removeprefix('/')}") from error


def _check_request(manifest: Manifest, request: Mapping[str, Any]) -> None:
    """Raise ScoringError for an option that the task's request does not have, or whose value it refuses."""
    fields = request_fields(manifest)
    unknown = sorted(set(request) - fields)
    if unknown:
        known = ", ".join(sorted(fields)) or "none"
        raise ScoringError(f"--set {unknown[0]}: the options of a model {manifest.pair} are {known}")
    try:
        parse_request(TASKS[manifest.task].request, {"model": manifest.name, **request})
    except EkibenError as error:
        raise ScoringError(f"--set {error.detail.removeprefix('/')}") from error
