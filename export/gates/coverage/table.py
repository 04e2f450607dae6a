"""Structured rows of a table: every value of each category, and each column of numbers at both ends and at ties."""

from collections.abc import Iterator, Mapping

import numpy as np

from export.gates.cases import Array
from export.gates.coverage.row import Row
from export.gates.inputs.values import within_domain
from export.source import Source
from service.contract.readers import TableReader
from service.manifest import Manifest, ValueRange

NUM_TEST_ITEMS = 8
# Categories with more values than this are sampled evenly.
MAX_VALUES = 1024
TINY = (1e-45, 1e-30, 1e-10, 1e-3)


def table_rows(source: Source, manifest: Manifest, domain: Mapping[str, ValueRange]) -> Iterator[Row]:
    """All structured rows. A change of one column is made to a test item."""
    reader = manifest.reader
    assert isinstance(reader, TableReader)
    names = [spec.name for spec in manifest.inputs]
    items = [{name: source.examples.inputs[name][item] for name in names} for item in range(NUM_TEST_ITEMS)]
    for i, column in enumerate(reader.categories):
        for number, code in enumerate(_spread(len(column.values))):
            item = items[number % len(items)]
            yield Row(
                name=f"column {column.name!r} is {column.values[code]!r}",
                inputs={**item, "categories": _with(item["categories"], i, code)},
            )
    if not reader.numbers:
        return
    numbers, allowed = source.examples.inputs["numbers"], domain["numbers"]
    largest = float(np.abs(numbers).max())
    for name, row, values in _numbers(reader, numbers, allowed):
        clipped = within_domain(manifest, "numbers", np.clip(values, allowed.low, allowed.high))
        is_extreme = float(np.abs(clipped).max()) > largest
        yield Row(name=name, inputs={**items[row % len(items)], "numbers": clipped}, is_extreme=is_extreme)


def _numbers(reader: TableReader, numbers: Array, allowed: ValueRange) -> Iterator[tuple[str, int, Array]]:
    """Ordinary rows before extreme ones, so that they share batches."""
    count = numbers.shape[1]
    same = (0.0, 1.0, -1.0, *TINY, allowed.low, allowed.high)
    for number, value in enumerate(same):
        yield f"all numbers {value:g}", number, np.full(count, value, np.float32)
    for i, column in enumerate(reader.numbers):
        column_ends = (max(column.low, allowed.low), min(column.high, allowed.high))
        found = numbers[:, i]
        for number, value in enumerate((0.0, found.min(), found.max(), np.median(found), *column_ends)):
            values = _with(numbers[(i + number) % len(numbers)], i, value)
            yield f"column {column.name!r} is {value:g}", i + number, values


def _spread(count: int) -> list[int]:
    return np.unique(np.linspace(0, count - 1, min(count, MAX_VALUES)).round().astype(int)).tolist()


def _with(values: Array, index: int, value: float) -> Array:
    changed = values.copy()
    changed[index] = value
    return changed
