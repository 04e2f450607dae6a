"""Compares numbers with the range of values that a bundle proves: the domain in its manifest.

Numbers count in float32, as the model receives them. NaN is in no range, and infinity in none either.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from service.manifest import FINITE, ValueRange
from service.tasks.faults import describe_value

Floats = npt.NDArray[np.float32]


def is_within(array: Floats, allowed: ValueRange) -> bool:
    """Return whether every number of a float32 array is in the range. The array must not be empty."""
    return is_between(array, allowed.low, allowed.high)


def is_between(array: npt.NDArray[Any], low: float, high: float) -> bool:
    """Return whether low <= number <= high for every number of an array that is not empty."""
    # `argmin` is four times as fast as `min`. Both results are NaN if any number is, and NaN compares as false.
    return bool(low <= array.item(array.argmin()) and array.item(array.argmax()) <= high)


def outside(array: Floats, allowed: ValueRange) -> npt.NDArray[np.bool_]:
    """Return a mask of the numbers that are not in the range."""
    is_outside: npt.NDArray[np.bool_] = ~((array >= allowed.low) & (array <= allowed.high))
    return is_outside


def describe_range(allowed: ValueRange) -> str:
    """Return the range in words that follow "a number"."""
    if allowed is FINITE:
        return "that is finite in float32"
    return f"of {describe_value(allowed.low)} to {describe_value(allowed.high)}"
