"""Maps columns of the input to fields of the task.

A field takes the column that the job names for it, else a column of its own name, else the only column left. If none of
these applies, the error lists the columns.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from service.contract.readers import SeriesReader, TableReader, TensorsReader
from service.manifest import Manifest
from service.scoring.input.files import InputFile
from service.scoring.job import ScoringError


@dataclass(frozen=True, kw_only=True)
class Field:
    """A field of a task.

    The column of its own name, or else of one of its `aliases`, feeds it unless the job names another one. A row may
    lack a `sparse` field: null then means the same as absent, and the output has the same columns.
    """

    name: str
    aliases: tuple[str, ...] = ()
    required: bool = False
    sparse: bool = False


SEED = Field(name="seed", sparse=True)
LANGUAGE_MODEL = (
    Field(name="prompt", aliases=("prompts", "text"), required=True),
    SEED,
    *(Field(name=name, sparse=True) for name in ("max_tokens", "temperature", "top_k", "top_p", "stop")),
    Field(name="logprobs"),
)
# By kind of reader.
FIELDS: Mapping[str, tuple[Field, ...]] = {
    "image": (Field(name="image", aliases=("images", "pixels", "array"), required=True),),
    "text": (Field(name="text", aliases=("texts",), required=True),),
    "series": (
        Field(name="sequence", aliases=("sequences", "series", "array"), required=True),
        Field(name="length", aliases=("lengths",)),
    ),
}
STATE = Field(name="state", aliases=("states",), sparse=True)


def fields_of(manifest: Manifest) -> tuple[Field, ...]:
    """The fields of the rows that a model reads."""
    reader = manifest.reader
    if manifest.task == "generate":
        return LANGUAGE_MODEL if manifest.head.kind == "language-model" else (SEED,)
    if isinstance(reader, TableReader):
        return tuple(Field(name=column.name, required=True) for column in reader.columns)
    if isinstance(reader, TensorsReader):
        return tuple(Field(name=spec.name, required=True) for spec in manifest.inputs)
    has_state = isinstance(reader, SeriesReader) and reader.state is not None
    return (*FIELDS[reader.kind], STATE) if has_state else FIELDS[reader.kind]


def map_columns(
    manifest: Manifest,
    requested: Mapping[str, str],
    columns: Sequence[str],
    *,
    reserved: Iterable[str],
    sparse: bool = False,
) -> dict[str, str]:
    """Map each field to the column that feeds it.

    The job asks for `requested`; `reserved` columns (the id, the copied ones) feed no field by default. With `sparse`,
    rows may have other columns, so a sparse field takes the column of its name. Only a model with one required field
    takes a column of another name without being told. Raises ScoringError with the columns.
    """
    fields = {field.name: field for field in fields_of(manifest)}
    unknown = sorted(set(requested) - set(fields))
    if unknown:
        raise ScoringError(f"--column {unknown[0]}=…: the fields of a model {manifest.pair} are {', '.join(fields)}")
    absent = sorted(set(requested.values()) - set(columns))
    if absent:
        raise ScoringError(f"--column: no column {absent[0]!r}; available: {', '.join(map(repr, columns))}")
    mapped = dict(requested)
    is_only = sum(field.required for field in fields.values()) == 1
    for field in fields.values():
        defaults = [name for name in (field.name, *field.aliases) if name in columns]
        if field.name not in mapped and len(defaults) > 1 and field.name not in columns:
            raise ScoringError(
                f"cannot tell which column holds the {field.name}: pass --column {field.name}=NAME; "
                f"columns: {', '.join(map(repr, columns))}"
            )
        if field.name not in mapped and defaults:
            mapped[field.name] = defaults[0]
        if field.name not in mapped and field.required:
            left = [name for name in columns if is_only and name not in {*reserved, *mapped.values()}]
            if len(left) != 1:
                raise ScoringError(
                    f"cannot tell which column holds the {field.name}: pass --column {field.name}=NAME; "
                    f"columns: {', '.join(map(repr, columns)) or 'none'}"
                )
            mapped[field.name] = left[0]
        if sparse and field.name not in mapped and field.sparse:
            mapped[field.name] = field.name
    return mapped


def check_header(manifest: Manifest, file: InputFile, columns: Sequence[str], named: Container[str]) -> None:
    """Raise ScoringError unless the job or the model names a column: else the first line may be a row."""
    names = {name for field in fields_of(manifest) for name in (field.name, *field.aliases)}
    if not any(column in names or column in named for column in columns):
        field = fields_of(manifest)[0].name
        first = ", ".join(map(repr, columns))
        raise ScoringError(
            f"{file.name}: the first line names no column that the model reads: pass --column {field}=NAME if it is "
            f"the header, or --no-header if it is a row; the line is {first:.200}"
        )


def check_columns(file: InputFile, columns: Sequence[str], needed: Iterable[str]) -> None:
    """Raise ScoringError if the file lacks a column that the job reads."""
    absent = [name for name in needed if name not in columns]
    if absent:
        raise ScoringError(f"{file.name}: no column {absent[0]!r}; available: {', '.join(map(repr, columns))}")
