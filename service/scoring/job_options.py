"""Resolves the options of a job: columns, defaults, and the fields of the task's request."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from service.errors import EkibenError
from service.manifest import Manifest
from service.scoring.input.fields import check_columns, check_header, fields_of, map_columns
from service.scoring.input.files import InputFile
from service.scoring.input.nested import with_paths
from service.scoring.input.schema import CommonSchema
from service.scoring.job import LINE_FORMATS, Format, Job, ScoringError, TextOptions, encode_schema
from service.scoring.output.copied import check_writable
from service.scoring.output.partitions.values import check_partitions, with_partition_columns
from service.scoring.plan import READ_ERRORS, format_error
from service.scoring.selection.condition import Condition, condition_of
from service.scoring.sources import SOURCES
from service.scoring.sources.text.lines import JsonSource, json_schema
from service.scoring.sources.text.openai import SeenIds, check_custom_ids, is_batch
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
# The ids of rows that have a name of their own, unless the job says another column.
ID_COLUMNS: Mapping[Format, str] = {"openai": "custom_id", "images": "name", "tar": "name", "webdataset": "key"}
BATCH_COLUMNS = {name: name for name in ("url", "body")}
BATCH_FIELDS = frozenset({"max_tokens", "temperature", "top_k", "top_p", "stop", "seed"})
# Files whose columns are read at once before the first row.
SCHEMA_THREADS = 8
TEXT_FIELDS = frozenset({"max_tokens", "temperature", "top_k", "top_p", "stop", "logprobs", "seed"})


def default_shard_rows(manifest: Manifest) -> int:
    return SHARD_ROWS.get(manifest.pair, SEQUENCE_SHARD_ROWS)


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
    partition_by: tuple[str, ...] = (),
    request: dict[str, Any],
    shard_rows: int | None,
    **options: Any,
) -> Job:
    """Fill in the defaults of a job and check its options against every file. Raises ScoringError."""
    text_options = TextOptions(**{name: options[name] for name in TextOptions.model_fields if name in options})
    first, schema, others = _first_with_columns(files, text_options)
    answers_batch = first.format == "openai"
    if answers_batch:
        _check_batch(manifest, columns, request)
    else:
        check_request(manifest, request)
    id_column = id_column or ID_COLUMNS.get(first.format)
    keep = with_partition_columns(manifest, keep, partition_by)
    if answers_batch and options["sink"] == "jsonl" and keep:
        raise ScoringError(
            "--keep, --partition-by: OpenAI's output has no place for columns; choose --output-format parquet or csv"
        )
    if options.get("escape_formulas") and options["sink"] != "csv":
        raise ScoringError("--escape-formulas: only --output-format csv has formulas")
    copied = [*([id_column] if id_column else []), *keep]
    _check_formats(first, text_options)
    condition = condition_of(options.get("where"))
    filtering = [] if condition is None else condition.columns
    if answers_batch and (condition is not None or options.get("sample") is not None):
        raise ScoringError("--where, --sample: every line of an OpenAI batch is answered")
    named = [*columns.values(), *(name for name in (*copied, *filtering) if name not in {"*", *first.partitions})]
    schema = with_paths(schema, named)
    if first.format == "jsonl":
        schema = _with_later_keys(files, text_options, schema, named)
    for name in (*copied, *filtering):
        if name not in {*schema.names, *first.partitions, "*"}:
            raise ScoringError(f"no column {name!r} in {first.name}; available: {', '.join(map(repr, schema.names))}")
    has_header = first.format == "csv" and text_options.header and bool(schema.names)
    try:
        mapped = (
            BATCH_COLUMNS
            if answers_batch
            else map_columns(manifest, columns, schema.names, reserved=copied, sparse=first.format == "jsonl")
        )
    except ScoringError as error:
        raise ScoringError(f"{error}; or --no-header if that is a row" if has_header else str(error)) from error
    if has_header:
        check_header(manifest, first, schema.names, named)
    names = [field.name for field in fields_of(manifest)]
    unfed = [name for name in names if name not in columns and mapped.get(name) != name]
    following, unreadable = _read_schemas(others, text_options)
    schemas = [(first, schema), *((file, with_paths(found, named)) for file, found in following)]
    if condition is not None:
        _check_condition(condition, schemas)
    copied = _copied_schema(schemas, id_column=id_column, keep=keep, feeding=mapped, unfed=unfed)
    check_writable(copied, options["sink"])
    check_partitions(manifest, copied, partition_by)
    try:
        return Job(
            model=manifest.name,
            version=manifest.version,
            input_format=first.format,
            columns=mapped,
            id_column=id_column,
            keep=keep,
            partition_by=partition_by,
            request=request,
            shard_rows=shard_rows or default_shard_rows(manifest),
            copied_schema=encode_schema(copied) if copied.names else "",
            unreadable=unreadable,
            **options,
        )
    except ValidationError as error:
        fault = error.errors()[0]
        raise ScoringError(f"option {fault['loc'][0]}: {fault['msg']}, got {fault['input']!r}") from error


def _check_formats(first: InputFile, text_options: TextOptions) -> None:
    """Raise ScoringError for an option of text that the format does not have."""
    said = {name for name, value in text_options.model_dump(exclude={"header"}).items() if value is not None}
    allowed = {"csv": {"delimiter", "quote", "escape", "encoding"}, **{name: {"encoding"} for name in LINE_FORMATS}}
    unused = sorted(said - allowed.get(first.format, set()))
    if unused:
        raise ScoringError(f"--{unused[0]}: files of the format {first.format} have none")


def _first_with_columns(
    files: Sequence[InputFile], text_options: TextOptions
) -> tuple[InputFile, pa.Schema, Sequence[InputFile]]:
    """The first file that is not empty, its columns, and the files after it; the first file if all are empty."""
    for i, file in enumerate(files):
        try:
            schema = SOURCES[file.format].schema(file, text_options)
        except READ_ERRORS as error:
            raise ScoringError(f"{file.name}: {format_error(error)}") from error
        if schema.names:
            return file, schema, files[i + 1 :]
    return files[0], pa.schema([]), ()


def _with_later_keys(
    files: Sequence[InputFile], text_options: TextOptions, schema: pa.Schema, named: Sequence[str]
) -> pa.Schema:
    """The keys of the first objects, and those of later ones that the job names; reads on until each was seen."""
    absent = [name for name in named if name not in schema.names]
    found = list[str]()
    for file in files:
        if not absent:
            break
        try:
            left = JsonSource.absent_keys(file, text_options, absent)
        except READ_ERRORS:
            # The plan names a file that cannot be read; until then nothing says that the key is not in it.
            left = []
        found += [name for name in absent if name not in left]
        absent = left
    return json_schema([*schema.names, *found])


def _copied_schema(
    schemas: Sequence[tuple[InputFile, pa.Schema]],
    *,
    id_column: str | None,
    keep: tuple[str, ...],
    feeding: Mapping[str, str],
    unfed: Sequence[str],
) -> pa.Schema:
    """The id and the copied columns, in types that hold the values of every file.

    Raises ScoringError that names file and column if there are none, and for model columns of different kinds.
    """
    first, schema = schemas[0]
    names = [name for name in schema.names if name in keep or (keep == ("*",) and name not in feeding.values())]
    names += [name for name in first.partitions if (name in keep or keep == ("*",)) and name not in names]
    names = list(dict.fromkeys([*([id_column] if id_column else []), *names]))
    if first.format in {"jsonl", "openai"}:
        for file, _ in schemas:
            differing = sorted(({*first.partitions} & {*names}) - {*file.partitions, *schema.names})
            differing += sorted({*file.partitions} - {*first.partitions, *names}) if keep == ("*",) else []
            if differing:
                raise ScoringError(f"{file.name}: the folders do not say {differing[0]!r} as those of {first.name} do")
        return pa.schema([_json_or_partition(name, schema) for name in names])
    common = CommonSchema(names, sorted(set(feeding.values())), unfed=unfed, is_closed=keep == ("*",))
    for file, found in schemas:
        if found.names:
            common.add(file, found)
    return common.copied()


def _check_condition(condition: Condition, schemas: Sequence[tuple[InputFile, pa.Schema]]) -> None:
    """Raise ScoringError for a file whose columns cannot be compared. Each JSON value has a type of its own."""
    for file, schema in schemas:
        if schema.names and file.format != "jsonl":
            kinds = {
                **dict.fromkeys(file.partitions, pa.string()),
                **dict(zip(schema.names, schema.types, strict=True)),
            }
            check_columns(file, list(kinds), condition.columns)
            condition.check(kinds)


def _json_or_partition(name: str, schema: pa.Schema) -> pa.Field:
    return schema.field(name) if name in schema.names else pa.field(name, pa.string())


def _read_schemas(
    files: Sequence[InputFile], text_options: TextOptions
) -> tuple[list[tuple[InputFile, pa.Schema]], dict[str, str]]:
    """The schema of each file that can be read, and why the others cannot be read, by name."""

    def read(file: InputFile) -> pa.Schema | str:
        try:
            return SOURCES[file.format].schema(file, text_options)
        except READ_ERRORS as error:
            return f"{file.name}: {format_error(error)}"

    with ThreadPoolExecutor(SCHEMA_THREADS) as threads:
        found = list(zip(files, threads.map(read, files), strict=True))
    return (
        [(file, schema) for file, schema in found if not isinstance(schema, str)],
        {file.name: reason for file, reason in found if isinstance(reason, str)},
    )


def detect_batch(
    files: Sequence[InputFile], input_format: Format | None, text_options: TextOptions
) -> Sequence[InputFile]:
    """Return the files as those of an OpenAI batch if they are JSON Lines with its keys, unless the job names a format.

    Raises ScoringError if a `custom_id` is given twice.
    """
    if input_format is None and files[0].format == "jsonl":
        _, schema, _ = _first_with_columns(files, text_options)
        if is_batch(schema.names):
            files = [replace(file, format="openai") for file in files]
    if files[0].format == "openai":
        seen: SeenIds = {}
        for file in files:
            # The plan names a file that cannot be read.
            with suppress(*READ_ERRORS):
                check_custom_ids(file, text_options, seen)
    return files


def _check_batch(manifest: Manifest, columns: Mapping[str, str], request: Mapping[str, Any]) -> None:
    """Raise ScoringError unless the model answers batches, and these fields may hold for all of their requests."""
    if columns:
        raise ScoringError(f"--column {next(iter(columns))}: the requests of an OpenAI batch name their fields")
    if manifest.head.kind != "language-model":
        raise ScoringError(f"--input-format openai: {manifest.name} generates no texts")
    if unknown := sorted(set(request) - BATCH_FIELDS):
        known = ", ".join(sorted(BATCH_FIELDS))
        raise ScoringError(f"--set {unknown[0]}: for all requests of an OpenAI batch it may be {known}")
    try:
        parse_fields(CompletionRequest, {"model": manifest.name, **request})
    except EkibenError as error:
        raise ScoringError(f"--set {error.detail.removeprefix('/')}") from error


def check_request(manifest: Manifest, request: Mapping[str, Any]) -> None:
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
