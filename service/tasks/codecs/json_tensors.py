"""Converts nested JSON lists to tensors of any dtype.

Invariant: entries are never coerced. Whole numbers are exact and in the range of the dtype, numbers of a float dtype
are finite in it, `bool` holds true and false only, and `string` holds strings only.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from service.contract.tensors import Dtype
from service.tasks.codecs.json_arrays import check_entries, flatten
from service.tasks.faults import type_fault

Array = npt.NDArray[Any]
ENTRIES = {"b": "true or false", "O": "strings"}


def parse_tensor(value: Any, num_axes: int, dtype: Dtype, pointer: str) -> Array:
    """Convert lists that are nested `num_axes` deep; strings become an array of Python objects.

    Raises EkibenError that points at the first invalid list or entry.
    """
    shape = _shape(value, num_axes, pointer)
    kind = np.dtype(object if dtype == "string" else dtype)
    flat = flatten(value, shape)
    if flat is not None:
        array = _convert(flat, kind)
        if array is not None:
            return array.reshape(shape)
    check_entries(value, shape, pointer, _expected_entry(kind), ENTRIES.get(kind.kind, "numbers"))
    raise AssertionError("every list that cannot be converted has an invalid row or entry")


def _shape(value: Any, num_axes: int, pointer: str) -> tuple[int, ...]:
    """Return the sizes of the outermost lists; the lists beside them may differ."""
    shape: list[int] = []
    level = value
    for axis in range(num_axes):
        if type(level) is not list or not level:
            raise type_fault(pointer + "/0" * axis, f"non-empty lists nested {num_axes} deep", level)
        shape.append(len(level))
        level = level[0]
    return tuple(shape)


def _convert(flat: list[Any], dtype: np.dtype[Any]) -> Array | None:
    """Return the entries as an array; None if one of them is not accepted."""
    types = set(map(type, flat))
    match dtype.kind:
        case "b":
            return np.array(flat, dtype) if types == {bool} else None
        case "O":
            if types != {str}:
                return None
            strings = np.empty(len(flat), object)
            strings[:] = flat
            return strings
        case "f":
            return _floats(flat, dtype) if types <= {int, float} else None
        case _:
            try:
                return np.array(flat, dtype) if types == {int} else None
            except OverflowError:
                return None


def _floats(flat: list[Any], dtype: np.dtype[Any]) -> Array | None:
    try:
        with np.errstate(over="ignore"):
            array = np.array(flat, np.float64).astype(dtype, copy=False)
    except OverflowError:  # a whole number beyond float64
        return None
    return array if np.isfinite(array).all() else None


def _expected_entry(dtype: np.dtype[Any]) -> Callable[[Any], str | None]:
    """Return a function that tells what an invalid entry should have been."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        expected = f"a whole number of {limits.min} to {limits.max}"
    elif dtype.kind == "f":
        expected = f"a number that is finite in {dtype}"
    else:
        expected = "true or false" if dtype.kind == "b" else "a string"
    return lambda value: None if _convert([value], dtype) is not None else expected
