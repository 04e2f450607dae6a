"""The types of a job's columns: one type for all files that holds every value exactly, or the job is refused."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
from pyarrow import types

from service.scoring.input.files import InputFile
from service.scoring.job import ScoringError

# What a value of a model is never made of.
TEMPORAL = (types.is_temporal, types.is_interval)
LeafChange = Callable[[pa.DataType], pa.DataType]


class CommonSchema:
    """The columns that a job copies, and those that feed its model, over the files added so far.

    With `is_closed` every column is copied, so every file must have the same ones. A column named like an `unfed` field
    of the model would be ignored, because the first file lacks it, so no file may have one.
    """

    def __init__(self, copied: Sequence[str], feeding: Sequence[str], *, unfed: Sequence[str], is_closed: bool) -> None:
        self._names, self._feeding, self._unfed, self._is_closed = copied, feeding, unfed, is_closed
        self._copied: dict[str, tuple[pa.DataType, InputFile]] = {}
        self._fed: dict[str, tuple[pa.DataType, InputFile]] = {}
        self._first: InputFile | None = None

    def add(self, file: InputFile, schema: pa.Schema) -> None:
        """Widen the types to those of another file. Raises ScoringError that names file and column."""
        partitions = {name: pa.string() for name in file.partitions}
        found = {**partitions, **{field.name: unwrapped_type(field.type) for field in schema}}
        self._first = self._first or file
        for name in found if self._is_closed else ():
            if name not in {*self._names, *self._feeding}:
                raise ScoringError(
                    f"{file.name}: column {name!r} is not in {self._first.name}, and --keep '*' copies the same "
                    "columns of every file: name them with --keep"
                )
        for name in self._unfed:
            if name in found and name not in self._names:
                raise ScoringError(
                    f"{file.name}: column {name!r} is a field of the model, and {self._first.name} has no such column: "
                    "score these files in jobs of their own"
                )
        for names, common, exact in ((self._names, self._copied, True), (self._feeding, self._fed, False)):
            for name in names:
                if name not in found:
                    available = ", ".join(map(repr, schema.names))
                    raise ScoringError(f"{file.name}: no column {name!r}; available: {available}")
                self._widen(file, name, found[name], common, exact=exact)
        for name, (kind, _) in self._fed.items():
            if any(test(leaf) for leaf in leaf_types(kind) for test in TEMPORAL):
                raise ScoringError(f"{file.name}: column {name!r} is {kind}, and no model reads times or dates")

    def _widen(
        self,
        file: InputFile,
        name: str,
        kind: pa.DataType,
        common: dict[str, tuple[pa.DataType, InputFile]],
        *,
        exact: bool,
    ) -> None:
        before, origin = common.setdefault(name, (kind, file))
        both = common_type(before, kind) if exact else before if _same_kind(before, kind, exact=False) else None
        if both is None and exact:
            raise ScoringError(
                f"{file.name}: column {name!r} is {kind}, in {origin.name} it is {before}, and no type holds both "
                "exactly: score them in jobs of their own, or cast it"
            )
        if both is None:
            raise ScoringError(f"{file.name}: column {name!r} is {kind}, in {origin.name} it is {before}")
        if both != before:
            common[name] = (both, file)

    def copied(self) -> pa.Schema:
        return pa.schema(
            [(name, self._copied[name][0] if name in self._copied else pa.string()) for name in self._names]
        )


def leaf_types(kind: pa.DataType) -> Iterator[pa.DataType]:
    """The types of the values inside of a nested type; a type that is not nested itself."""
    if not types.is_nested(kind) or types.is_union(kind):
        yield kind
        return
    for i in range(kind.num_fields):
        yield from leaf_types(kind.field(i).type)


def unwrapped(column: pa.Array) -> pa.Array:
    """Remove what Arrow wraps values in: extension types, dictionaries, views; half floats become floats."""
    if isinstance(column, pa.ExtensionArray):
        if str(column.type) == "extension<arrow.uuid>":
            return pa.array([None if value is None else str(value) for value in column.to_pylist()], pa.string())
        column = column.storage
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if types.is_run_end_encoded(column.type):
        column = pa.compute.run_end_decode(column)
    kind = unwrapped_type(column.type)
    return column if kind == column.type else column.cast(kind)


def unwrapped_type(kind: pa.DataType) -> pa.DataType:
    """The type of a column after `unwrapped`."""
    if isinstance(kind, pa.BaseExtensionType):
        return pa.string() if str(kind) == "extension<arrow.uuid>" else unwrapped_type(kind.storage_type)
    return with_leaves(kind, _unwrapped_leaf)


def _unwrapped_leaf(kind: pa.DataType) -> pa.DataType:
    if isinstance(kind, pa.BaseExtensionType):
        return _unwrapped_leaf(kind.storage_type)
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return _unwrapped_leaf(kind.value_type)
    if types.is_float16(kind):
        return pa.float32()
    # Views and large texts hold what texts hold, and not every reader knows views.
    if kind == pa.string_view():
        return pa.large_string()
    return pa.large_binary() if kind == pa.binary_view() else kind


def with_leaves(kind: pa.DataType, change: LeafChange) -> pa.DataType:
    """A type with another type in place of each value that is not nested."""

    def changed(field: pa.Field) -> pa.Field:
        return field.with_type(with_leaves(field.type, change))

    if types.is_struct(kind):
        return pa.struct([changed(kind.field(i)) for i in range(kind.num_fields)])
    if types.is_map(kind):
        return pa.map_(changed(kind.key_field), changed(kind.item_field))
    if types.is_fixed_size_list(kind):
        return pa.list_(changed(kind.value_field), kind.list_size)
    if types.is_large_list(kind) or types.is_large_list_view(kind):
        return pa.large_list(changed(kind.value_field))
    if types.is_list(kind) or types.is_list_view(kind):
        return pa.list_(changed(kind.value_field))
    return change(kind)


def common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """A plain type that holds the values of both; None if there is none.

    Integers widen to integers, floats to floats, decimals to decimals, times to the finer unit.
    """
    if one == other or types.is_null(other):
        return one
    if types.is_null(one):
        return other
    if not _same_kind(one, other, exact=True):
        return None
    try:
        schemas = [pa.schema([("column", kind)]) for kind in (one, other)]
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return None


def _same_kind(one: pa.DataType, other: pa.DataType, *, exact: bool) -> bool:
    """Whether two types are of one kind, at every level. Unless `exact`, whole numbers and floats are of one kind."""
    if types.is_null(one) or types.is_null(other):
        return True
    if _kind(one, exact=exact) != _kind(other, exact=exact):
        return False
    if types.is_struct(one) and [field.name for field in one] != [field.name for field in other]:
        return False
    pairs = zip(_fields(one), _fields(other), strict=True)
    return all(_same_kind(a, b, exact=exact) for a, b in pairs)


def _fields(kind: pa.DataType) -> list[pa.DataType]:
    return [kind.field(i).type for i in range(kind.num_fields)] if types.is_nested(kind) else []


def _kind(kind: pa.DataType, *, exact: bool) -> Any:
    tests = {
        "text": (types.is_string, types.is_large_string),
        "bytes": (types.is_binary, types.is_large_binary, types.is_fixed_size_binary),
        "integer" if exact else "number": (types.is_integer,),
        "float" if exact else "number ": (types.is_floating,),
        "decimal": (types.is_decimal,),
        "date": (types.is_date,),
        "time": (types.is_time,),
        "duration": (types.is_duration,),
        "list": (types.is_list, types.is_large_list, types.is_fixed_size_list),
        "map": (types.is_map,),
        "struct": (types.is_struct,),
    }
    if types.is_timestamp(kind):
        return "timestamp", kind.tz
    for name, checks in tests.items():
        if any(check(kind) for check in checks):
            return name.strip()
    return kind
