"""Which column of the input feeds which field of the task.

A field takes the column that the job names for it, else one that bears its name, else the only column there is. What
cannot be settled is an error that lists the columns.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from service.scoring.files import InputFile
from service.scoring.job import ScoringError


@dataclass(frozen=True, kw_only=True)
class Field:
    """A field of a task; `names` are the columns that feed it without being asked."""

    name: str
    names: tuple[str, ...]
    required: bool = True
    sparse: bool = False  # null is the same as none, and changes no column of the output


SEQUENCE = Field(name="sequence", names=("sequence", "sequences", "series", "array"))
SEED = Field(name="seed", names=("seed",), required=False, sparse=True)

FIELDS: Mapping[str, tuple[Field, ...]] = {  # by family
    "image-classifier": (Field(name="image", names=("image", "images", "pixels", "array")),),
    "text-classifier": (Field(name="text", names=("text", "texts")),),
    "series-classifier": (SEQUENCE, Field(name="length", names=("length", "lengths"), required=False)),
    "series-tagger": (
        SEQUENCE,
        Field(name="length", names=("length", "lengths"), required=False),
        Field(name="state", names=("state", "states"), required=False, sparse=True),
    ),
    "language-model": (
        Field(name="prompt", names=("prompt", "prompts", "text")),
        SEED,
        *(
            Field(name=name, names=(name,), required=False, sparse=name != "logprobs")
            for name in ("max_tokens", "temperature", "top_k", "top_p", "stop", "logprobs")
        ),
    ),
    "image-generator": (SEED,),
}


def map_columns(
    family: str, asked: Mapping[str, str], columns: Sequence[str], *, others: Iterable[str], sparse: bool = False
) -> dict[str, str]:
    """field -> column. `others` are columns that are spoken for: the id and what is kept.

    `sparse`: rows may have columns beside `columns`; a field that any row may lack then takes that of its name.
    """
    fields = {field.name: field for field in FIELDS[family]}
    unknown = sorted(set(asked) - set(fields))
    if unknown:
        raise ScoringError(f"--column {unknown[0]}=…: the fields of a {family} are {', '.join(fields)}")
    absent = sorted(set(asked.values()) - set(columns))
    if absent:
        raise ScoringError(f"--column: no column {absent[0]!r}; there are {', '.join(map(repr, columns))}")
    found = dict(asked)
    for field in fields.values():
        named = [name for name in field.names if name in columns]
        if field.name not in found and named:
            found[field.name] = named[0]
        if field.name not in found and field.required:
            left = [name for name in columns if name not in {*others, *found.values()}]
            if len(left) != 1:
                raise ScoringError(
                    f"which column is the {field.name}? Say --column {field.name}=NAME; "
                    f"there are {', '.join(map(repr, columns)) or 'none'}"
                )
            found[field.name] = left[0]
        if sparse and field.name not in found and field.sparse:
            found[field.name] = field.name
    return found


def check_columns(file: InputFile, columns: Sequence[str], wanted: Iterable[str]) -> None:
    """Raises ScoringError if the file lacks a column that the job reads."""
    absent = [name for name in wanted if name not in columns]
    if absent:
        raise ScoringError(f"{file.name}: no column {absent[0]!r}; there are {', '.join(map(repr, columns))}")
