"""Nested JSON lists of numbers to numpy arrays, without a Python object more than the parser made.

Invariant: an array is returned only if every entry was a JSON number of the wanted kind in a list of the wanted shape;
otherwise the error points at the first entry or row that is wrong.
"""

import math
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from service.errors import EkibenError
from service.tasks.body import wrong

Shape = tuple[int | None, ...]  # None: any length of at least 1


def pixels(value: Any, shape: tuple[int, ...], where: str) -> npt.NDArray[np.uint8]:
    """`value` as uint8 of exactly `shape`, from whole numbers 0..255."""
    flat = _flatten(value, shape)
    if flat is not None:
        try:
            if b"e" not in orjson.dumps(flat):  # which true and false have: they are numbers to bytes()
                return np.frombuffer(bytes(flat), np.uint8).reshape(shape)
        except (TypeError, ValueError):
            pass
    problem = _problem(value, shape, where, _pixel_problem)
    if problem is not None:
        raise problem
    return np.array(value, np.float64).astype(np.uint8)  # whole numbers, some of them written as 7.0


def numbers(value: Any, width: int, where: str) -> npt.NDArray[np.float32]:
    """`value` as float32 [rows, width] with at least one row, from numbers that are finite in float32."""
    shape = (None, width)
    flat = _flatten(value, shape)
    if flat is not None and set(map(type, flat)) <= {int, float}:
        array = finite(np.array(flat, np.float64))
        if array is not None:
            return array.reshape(-1, width)
    problem = _problem(value, shape, where, _number_problem)
    assert problem is not None, "what cannot be read has a reason"
    raise problem


def finite(array: npt.NDArray[Any]) -> npt.NDArray[np.float32] | None:
    """The array as float32, or None if a number is not finite there."""
    with np.errstate(over="ignore"):
        narrow = array.astype(np.float32)
    return narrow if np.isfinite(narrow).all() else None


def _flatten(value: Any, shape: Shape) -> list[Any] | None:
    """All entries in order, or None if `value` is not made of lists of this shape."""
    rows: list[Any] = [value]
    for size in shape:
        if set(map(type, rows)) != {list}:
            return None
        lengths = set(map(len, rows))
        if (0 in lengths) if size is None else (lengths != {size}):
            return None
        rows = list(chain.from_iterable(rows))
    return rows


def _problem(value: Any, shape: Shape, where: str, check: Callable[[Any], str | None]) -> EkibenError | None:
    """The first wrong row or entry, depth first."""
    if not shape:
        expected = check(value)
        return None if expected is None else wrong(where, expected, value)
    size, rest = shape[0], shape[1:]
    if type(value) is not list or not value or (size is not None and len(value) != size):
        inner = "numbers" if not rest else "lists"
        expected = f"a list of {size} {inner}" if size is not None else f"a list of at least 1 of {inner}"
        return wrong(where, f"{expected} (the shape is {_shown(shape)})", value)
    problems: Iterable[EkibenError | None] = (
        _problem(item, rest, f"{where}/{i}", check) for i, item in enumerate(value)
    )
    return next((problem for problem in problems if problem is not None), None)


def _pixel_problem(value: Any) -> str | None:
    if type(value) is int or (type(value) is float and value.is_integer()):
        return None if 0 <= value <= 255 else "a pixel value of 0 to 255"
    return "a whole number of 0 to 255"


def _number_problem(value: Any) -> str | None:
    if type(value) not in {int, float}:
        return "a number"
    largest = float(np.finfo(np.float32).max)
    return None if math.isfinite(value) and abs(value) <= largest else f"a finite number of at most {largest:.3g}"


def _shown(shape: Shape) -> str:
    return "[" + ", ".join("steps" if size is None else str(size) for size in shape) + "]"
