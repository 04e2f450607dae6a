"""Rows of named columns: numbers in a range, and texts out of a list of values.

Invariant: a row has exactly the columns of the model. Its numbers count in float32, as the model receives them, and lie
in the range of their column and in the domain; a category is the index of its value.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from service.bundle import Tensors
from service.contract.readers import CategoryColumn, NumberColumn, TableReader
from service.engine.context import RequestContext
from service.engine.runner import Runner
from service.engine.sessions.model import Model
from service.errors import Fault
from service.manifest import Manifest, ValueRange
from service.tasks.body import check_items
from service.tasks.codecs.json_arrays import to_float32
from service.tasks.domain import describe_range, is_within
from service.tasks.faults import MAX_FAULTS, describe_value, fault, invalid_request, json_pointer
from service.tasks.readers.payload import Fields, Group, Payload

FIELD = "rows"
# Of the values of a category in an error.
MAX_QUOTED_VALUES, MAX_QUOTED_CHARS = 8, 40


async def read(model: Model, _runner: Runner, fields: Fields, _context: RequestContext) -> Payload:
    """Read all rows of a request."""
    items = fields[FIELD]
    if items is None:
        raise fault("/rows", f"this field is required: {model.manifest.name} reads rows of named columns")
    check_items(items, model.manifest, "/rows")
    return Payload(pointer="/rows", groups=(Group(read_rows(items, model.manifest, "/rows"), range(len(items))),))


def read_rows(items: Sequence[Any], manifest: Manifest, pointer: str) -> Tensors:
    """Return `numbers` and `categories` of rows; raises EkibenError("invalid-request") that lists the faults."""
    reader = manifest.reader
    assert isinstance(reader, TableReader), "the reader of tables"
    names = {column.name for column in reader.columns}
    if not all(type(item) is dict and item.keys() == names for item in items):
        raise _row_error(items, reader, manifest, pointer)
    inputs: Tensors = {}
    if reader.numbers:
        columns = [_numbers([item[column.name] for item in items], column, manifest) for column in reader.numbers]
        if any(column is None for column in columns):
            raise _row_error(items, reader, manifest, pointer)
        inputs = {"numbers": np.stack([column for column in columns if column is not None], axis=1)}
    if reader.categories:
        try:
            indexes = [[column.index[item[column.name]] for column in reader.categories] for item in items]
        except (KeyError, TypeError):  # a list or an object cannot be looked up
            raise _row_error(items, reader, manifest, pointer) from None
        inputs = {**inputs, "categories": np.array(indexes, np.int64)}
    return inputs


def number_range(column: NumberColumn, manifest: Manifest) -> ValueRange:
    """Return the numbers that a column accepts: its range, within the domain of the model."""
    domain = manifest.value_range("numbers")
    declared = ValueRange(low=column.low, high=column.high)
    low, high = max(declared.low, domain.low), min(declared.high, domain.high)
    # Of ranges that do not meet, no number is accepted.
    return domain if (low, high) == (domain.low, domain.high) else ValueRange.model_construct(low=low, high=high)


def _numbers(values: list[Any], column: NumberColumn, manifest: Manifest) -> npt.NDArray[np.float32] | None:
    """Return the numbers of a column; None if one of them is not accepted."""
    if not set(map(type, values)) <= {int, float}:
        return None
    try:
        numbers = to_float32(np.array(values, np.float64))
    except OverflowError:  # a whole number beyond float64
        return None
    return numbers if is_within(numbers, number_range(column, manifest)) else None


def _row_error(items: Sequence[Any], reader: TableReader, manifest: Manifest, pointer: str) -> Exception:
    """Return the error of rows of which at least one is invalid."""
    faults: list[Fault] = []
    for i, item in enumerate(items):
        faults += _row_faults(item, reader, manifest, f"{pointer}/{i}")
        if len(faults) > MAX_FAULTS:
            break
    assert faults, "every row that is refused has an invalid column"
    return invalid_request(faults)


def _row_faults(item: Any, reader: TableReader, manifest: Manifest, pointer: str) -> list[Fault]:
    columns = {column.name: column for column in reader.columns}
    if type(item) is not dict:
        expected = f"an object with a value for each of {_quote(list(columns))}"
        return [Fault(pointer=pointer, detail=f"expected {expected}, got {describe_value(item)}")]
    faults = [
        Fault(pointer=pointer + json_pointer(name), detail=f"unknown column; the columns are {_quote(list(columns))}")
        for name in item
        if name not in columns
    ]
    for name, column in columns.items():
        where = pointer + json_pointer(name)
        accepted = describe_column(column, manifest)
        if name not in item:
            faults.append(Fault(pointer=where, detail=f"this column is required: expected {accepted}"))
        elif not _is_accepted(item[name], column, manifest):
            faults.append(Fault(pointer=where, detail=f"expected {accepted}, got {describe_value(item[name])}"))
    return faults


def _is_accepted(value: Any, column: NumberColumn | CategoryColumn, manifest: Manifest) -> bool:
    if isinstance(column, CategoryColumn):
        return type(value) is str and value in column.index
    return _numbers([value], column, manifest) is not None


def describe_column(column: NumberColumn | CategoryColumn, manifest: Manifest) -> str:
    """Return in words what a column accepts."""
    if isinstance(column, CategoryColumn):
        return f"one of {_quote(column.values)}"
    return f"a number {describe_range(number_range(column, manifest))}"


def _quote(values: Sequence[str]) -> str:
    """Return the first values in quotes, each abbreviated, and the number of the others."""
    quoted = [repr(value if len(value) <= MAX_QUOTED_CHARS else f"{value[:MAX_QUOTED_CHARS]}…") for value in values]
    others = len(values) - MAX_QUOTED_VALUES
    return ", ".join(quoted[:MAX_QUOTED_VALUES]) + (f" and {others} more" if others > 0 else "")
