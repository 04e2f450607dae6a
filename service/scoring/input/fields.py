"""Maps columns of the input to fields of the task.

A field takes the column that the job names for it, else a column of its own name, else the only column left. If none of
these applies, the error lists the columns.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from service.scoring.input.files import InputFile
from service.scoring.job import ScoringError


@dataclass(frozen=True, kw_only=True)
class Field:
    """A field of a task.

    `default_columns` feed it unless the job names another column. A row may lack a `sparse` field: null then means the
    same as absent, and the output has the same columns.
    """

    name: str
    default_columns: tuple[str, ...]
    required: bool = True
    sparse: bool = False


SEQUENCE = Field(name="sequence", default_columns=("sequence", "sequences", "series", "array"))
LENGTH = Field(name="length", default_columns=("length", "lengths"), required=False)
SEED = Field(name="seed", default_columns=("seed",), required=False, sparse=True)

# By family of model.
FIELDS: Mapping[str, tuple[Field, ...]] = {
    "image-classifier": (Field(name="image", default_columns=("image", "images", "pixels", "array")),),
    "text-classifier": (Field(name="text", default_columns=("text", "texts")),),
    "series-classifier": (SEQUENCE, LENGTH),
    "series-tagger": (
        SEQUENCE,
        LENGTH,
        Field(name="state", default_columns=("state", "states"), required=False, sparse=True),
    ),
    "language-model": (
        Field(name="prompt", default_columns=("prompt", "prompts", "text")),
        SEED,
        *(
            Field(name=name, default_columns=(name,), required=False, sparse=name != "logprobs")
            for name in ("max_tokens", "temperature", "top_k", "top_p", "stop", "logprobs")
        ),
    ),
    "image-generator": (SEED,),
}


def map_columns(
    family: str, requested: Mapping[str, str], columns: Sequence[str], *, reserved: Iterable[str], sparse: bool = False
) -> dict[str, str]:
    """Map each field to the column that feeds it.

    `requested` is the mapping that the job asks for; `reserved` columns (the id, the copied ones) feed no field by
    default. With `sparse`, rows may have columns that `columns` does not list, so a sparse field takes the column of
    its own name. Raises ScoringError that lists the columns.
    """
    fields = {field.name: field for field in FIELDS[family]}
    unknown = sorted(set(requested) - set(fields))
    if unknown:
        raise ScoringError(f"--column {unknown[0]}=…: the fields of a {family} are {', '.join(fields)}")
    absent = sorted(set(requested.values()) - set(columns))
    if absent:
        raise ScoringError(f"--column: no column {absent[0]!r}; there are {', '.join(map(repr, columns))}")
    mapped = dict(requested)
    for field in fields.values():
        defaults = [name for name in field.default_columns if name in columns]
        if field.name not in mapped and defaults:
            mapped[field.name] = defaults[0]
        if field.name not in mapped and field.required:
            left = [name for name in columns if name not in {*reserved, *mapped.values()}]
            if len(left) != 1:
                raise ScoringError(
                    f"which column is the {field.name}? Say --column {field.name}=NAME; "
                    f"there are {', '.join(map(repr, columns)) or 'none'}"
                )
            mapped[field.name] = left[0]
        if sparse and field.name not in mapped and field.sparse:
            mapped[field.name] = field.name
    return mapped


def check_columns(file: InputFile, columns: Sequence[str], needed: Iterable[str]) -> None:
    """Raise ScoringError if the file lacks a column that the job reads."""
    absent = [name for name in needed if name not in columns]
    if absent:
        raise ScoringError(f"{file.name}: no column {absent[0]!r}; there are {', '.join(map(repr, columns))}")
