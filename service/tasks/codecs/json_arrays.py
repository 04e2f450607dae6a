"""Converts nested JSON lists of numbers to numpy arrays, without additional Python objects per entry.

Invariant: a function returns an array only if every entry is a JSON number of the expected kind and the lists have the
expected shape; otherwise its error points at the first invalid row or entry.
"""

from collections.abc import Callable
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from service.manifest import ValueRange
from service.tasks.domain import describe_range, is_within
from service.tasks.faults import type_fault

# None stands for any length of at least 1.
Shape = tuple[int | None, ...]
# Lists of this length are joined as wholes, shorter ones entry by entry: that is faster.
MIN_EXTENDED = 8


def parse_pixels(value: Any, shape: tuple[int, ...], pointer: str) -> npt.NDArray[np.uint8]:
    """Convert whole numbers 0..255 to uint8 of exactly `shape`."""
    flat = flatten(value, shape)
    if flat is not None:
        try:
            # bytes() accepts True and False as numbers; their JSON contains an "e", that of whole numbers does not.
            if b"e" not in orjson.dumps(flat):
                return np.frombuffer(bytes(flat), np.uint8).reshape(shape)
        except (TypeError, ValueError):
            pass
    check_entries(value, shape, pointer, _expected_pixel)
    # Whole numbers, some of which are written as floats such as 7.0.
    return np.array(value, np.float64).astype(np.uint8)


def parse_numbers(value: Any, width: int, allowed: ValueRange, pointer: str) -> npt.NDArray[np.float32]:
    """Convert numbers that are in the range in float32 to float32 [rows, width], with at least one row."""
    shape = (None, width)
    flat = flatten(value, shape)
    if flat is not None and set(map(type, flat)) <= {int, float}:
        try:
            array = to_float32(np.array(flat, np.float64))
            if is_within(array, allowed):
                return array.reshape(-1, width)
        except OverflowError:  # a whole number beyond float64
            pass
    check_entries(value, shape, pointer, partial(_expected_number, allowed=allowed))
    raise AssertionError("every list that cannot be converted has an invalid row or entry")


def to_float32(array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Convert the array to float32; a number beyond float32 becomes infinite."""
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def flatten(value: Any, shape: Shape) -> list[Any] | None:
    """Return all entries in order, or None if `value` does not consist of lists of this shape."""
    rows: list[Any] = [value]
    for size in shape:
        if set(map(type, rows)) != {list}:
            return None
        lengths = set(map(len, rows))
        if (0 in lengths) if size is None else (lengths != {size}):
            return None
        if min(lengths) < MIN_EXTENDED:
            rows = list(chain.from_iterable(rows))
        else:
            joined: list[Any] = []
            for row in rows:
                joined += row
            rows = joined
    return rows


def check_entries(
    value: Any, shape: Shape, pointer: str, expected_entry: Callable[[Any], str | None], entries: str = "numbers"
) -> None:
    """Raise EkibenError for the first invalid row or entry, depth first; `expected_entry` is None for valid ones."""
    if not shape:
        if expected := expected_entry(value):
            raise type_fault(pointer, expected, value)
        return
    size, rest = shape[0], shape[1:]
    if type(value) is not list or not value or (size is not None and len(value) != size):
        inner = "lists" if rest else entries
        expected = f"a list of {size} {inner}" if size is not None else f"a non-empty list of {inner}"
        axes = ", ".join("steps" if axis is None else str(axis) for axis in shape)
        raise type_fault(pointer, f"{expected} (the shape is [{axes}])", value)
    for i, item in enumerate(value):
        check_entries(item, rest, f"{pointer}/{i}", expected_entry, entries)


def _expected_pixel(value: Any) -> str | None:
    if type(value) is int or (type(value) is float and value.is_integer()):
        return None if 0 <= value <= 255 else "a pixel value of 0 to 255"
    return "a whole number of 0 to 255"


def _expected_number(value: Any, allowed: ValueRange) -> str | None:
    if type(value) not in {int, float}:
        return "a number"
    return None if allowed.low <= value <= allowed.high else f"a number {describe_range(allowed)}"
