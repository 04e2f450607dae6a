"""Converts series of numbers to arrays, and pads the rows of a batch.

Invariant: a row is finite float32 [steps, channels] with 1 to `max_steps` steps. A batch is zero-padded, with lengths.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from service.tasks.codecs.json_arrays import parse_numbers, to_finite_float32
from service.tasks.faults import fault, type_fault


def read_series(row: Any, *, channels: int, max_steps: int | None, pointer: str) -> npt.NDArray[np.float32]:
    """Convert nested lists or an array of numbers to one row."""
    if isinstance(row, list | np.ndarray) and max_steps is not None and not 1 <= len(row) <= max_steps:
        raise fault(pointer, f"expected 1 to {max_steps} steps, got {len(row)}")
    if not isinstance(row, np.ndarray):
        return parse_numbers(row, channels, pointer)
    if row.ndim != 2 or row.shape[1] != channels or row.dtype.kind not in "fiu":
        raise fault(pointer, f"expected numbers [steps, {channels}], got {row.dtype} {list(row.shape)}")
    array = to_finite_float32(row)
    if array is None:
        step, channel = np.argwhere(~(np.abs(row) <= np.finfo(np.float32).max))[0].tolist()
        raise type_fault(f"{pointer}/{step}/{channel}", "a number that is finite in float32", float(row[step, channel]))
    return array


def pad_rows(rows: Sequence[Any], dtype: npt.DTypeLike, *width: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Pad series or token ids with zeros to the longest row; returns [batch, steps, *width] and lengths [batch]."""
    lengths_B = np.array([len(row) for row in rows], np.int64)
    padded_BT = np.zeros((len(rows), int(lengths_B.max()), *width), dtype)
    for i, row in enumerate(rows):
        padded_BT[i, : len(row)] = row
    return padded_BT, lengths_B
