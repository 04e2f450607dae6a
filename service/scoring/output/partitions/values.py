"""The values of partition columns as names of folders: `COLUMN=value`, as Hive, Spark and pyarrow write them.

Invariant: a reader that decodes the name has the value again, as a text; a row without such a name is rejected.
"""

from urllib.parse import quote

import orjson
import pyarrow as pa
from pyarrow import types

from service.manifest import Manifest
from service.scoring.job import ScoringError
from service.scoring.sources.text.lines import JSON_TEXT

# What Hive and Spark call a folder of rows without a value.
NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
# The longest name of a folder in most file systems.
MAX_NAME_BYTES = 255


def folder_name(column: str, value: str | None) -> str:
    """The folder of one value; what is not a letter, digit or one of `_.-~` is percent-encoded."""
    return f"{quote(column, safe='')}={NULL_PARTITION if value is None else quote(value, safe='')}"


def value_texts(column: pa.Array, field: pa.Field) -> list[str | None]:
    """The values as texts: JSON strings without their quotes, dates as 2024-01-31, and true or false."""
    if field.metadata == JSON_TEXT:
        values = column.to_pylist()
        return [orjson.loads(text) if text is not None and text.startswith('"') else text for text in values]
    days = column.cast(pa.date32()) if types.is_date(column.type) else column
    texts: list[str | None] = days.cast(pa.string()).to_pylist()
    return texts


def value_faults(column: pa.Array, field: pa.Field, name: str) -> dict[int, str]:
    """Why rows have no folder, for a copied column."""
    faults = dict[int, str]()
    for i, text in enumerate(value_texts(column, field)):
        if text == NULL_PARTITION:
            faults[i] = f"the value {text} means null in the name of a folder (--partition-by {name})"
        elif text is not None and len(folder_name(name, text)) > MAX_NAME_BYTES:
            faults[i] = f"the value is too long for the name of a folder (--partition-by {name})"
    return faults


def answers_label(manifest: Manifest) -> bool:
    """Whether the output of a model has the column `label`."""
    kind = manifest.head.kind
    return kind == "labels" or (kind == "token-labels" and manifest.reader.kind != "text")


def with_partition_columns(manifest: Manifest, keep: tuple[str, ...], partition_by: tuple[str, ...]) -> tuple[str, ...]:
    """The columns to copy, with the input columns among those of the partitions. `label` is the predicted one."""
    if keep == ("*",):
        return keep
    return (
        *keep,
        *(name for name in partition_by if name not in keep and not (name == "label" and answers_label(manifest))),
    )


def check_partitions(manifest: Manifest, copied: pa.Schema, partition_by: tuple[str, ...]) -> None:
    """Raise ScoringError for a column whose values cannot name folders."""
    for name in partition_by:
        if name.startswith(("_", ".")):
            raise ScoringError(f"--partition-by {name}: readers pass over folders whose names begin with {name[0]!r}")
        if name == "label" and answers_label(manifest):
            labels = pa.array(manifest.labels, pa.string())
            if faults := value_faults(labels, pa.field(name, pa.string()), name):
                raise ScoringError(
                    f"--partition-by label: the label {manifest.labels[min(faults)]!r:.80} names no folder"
                )
            continue
        if name not in copied.names:
            raise ScoringError(
                f"--partition-by {name}: --keep '*' does not copy what feeds the model: name the columns"
            )
        kind = copied.field(name).type
        if not any(
            test(kind)
            for test in (types.is_string, types.is_large_string, types.is_integer, types.is_boolean, types.is_date)
        ):
            raise ScoringError(
                f"--partition-by {name}: the column is {kind}; expected texts, whole numbers, truth values or dates"
            )
    if len(set(partition_by)) < len(partition_by):
        raise ScoringError(f"--partition-by {', '.join(partition_by)}: a column is named twice")
