"""Columns inside of nested ones, by paths such as `doc.text`. A column whose own name has the dot comes first."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


def steps_of(fields: pa.Schema | pa.StructType, name: str) -> tuple[str, ...] | None:
    """The names from a column down to the value that `name` is; None if there is no such value."""
    if name in {field.name for field in fields}:
        return (name,)
    for head, rest in _splits(name):
        kind = next((field.type for field in fields if field.name == head), None)
        steps = steps_of(kind, rest) if kind is not None and pa.types.is_struct(kind) else None
        if steps is not None:
            return (head, *steps)
    return None


def with_paths(schema: pa.Schema, names: Iterable[str]) -> pa.Schema:
    """The schema with a further column for each name that is a path in it."""
    paths = [name for name in dict.fromkeys(names) if name not in schema.names and steps_of(schema, name)]
    return pa.schema([*schema, *(field_of(schema, name) for name in paths)])


def field_of(schema: pa.Schema, name: str) -> pa.Field:
    """The column of a name or path. Raises KeyError if there is none."""
    steps = steps_of(schema, name)
    if steps is None:
        raise KeyError(name)
    kind = schema.field(steps[0]).type
    for step in steps[1:]:
        kind = kind.field(step).type
    return schema.field(name) if len(steps) == 1 else pa.field(name, kind)


def outer_names(schema: pa.Schema, names: Iterable[str]) -> list[str]:
    """The columns that hold the values of these names and paths."""
    return list(dict.fromkeys((steps_of(schema, name) or (name,))[0] for name in names))


def pick(batch: pa.RecordBatch, names: Sequence[str]) -> pa.RecordBatch:
    """The columns of these names and paths; a value inside of a null is null."""
    if batch.schema.names == list(names):
        return batch
    return pa.RecordBatch.from_arrays([_value(batch, name) for name in names], names=list(names))


def _value(batch: pa.RecordBatch, name: str) -> pa.Array:
    steps = steps_of(batch.schema, name)
    if steps is None:
        raise KeyError(name)
    column = batch.column(steps[0])
    for step in steps[1:]:
        column = pc.struct_field(column, [step])
    return column


def json_value(content: Mapping[str, Any], name: str, default: Any = None) -> Any:
    """The value of a key or path in a JSON object; the default if it has none."""
    if name in content or "." not in name:
        return content.get(name, default)
    for head, rest in _splits(name):
        if isinstance(inner := content.get(head), dict):
            value = json_value(inner, rest, _ABSENT)
            if value is not _ABSENT:
                return value
    return default


def has_path(content: Mapping[str, Any], name: str) -> bool:
    return json_value(content, name, _ABSENT) is not _ABSENT


def _splits(name: str) -> Iterator[tuple[str, str]]:
    """Each division of a path at a dot, that of the longest first part first."""
    parts = name.split(".")
    for count in range(len(parts) - 1, 0, -1):
        yield ".".join(parts[:count]), ".".join(parts[count:])


_ABSENT = object()
