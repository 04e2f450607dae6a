"""Converts series of numbers to padded arrays.

Invariant: a row is float32 [steps, channels], finite, with 1 to `max_steps` steps. Padding is zero, and a batch comes
with the length of each row.
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
    return _from_array(row, channels, pointer) if isinstance(row, np.ndarray) else parse_numbers(row, channels, pointer)


def pad_series(
    rows: Sequence[npt.NDArray[np.float32]],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Pad with zeros to the longest row; returns series [batch, steps, channels] and lengths [batch]."""
    lengths_B = np.array([len(row) for row in rows], np.int64)
    series_BTC = np.zeros((len(rows), int(lengths_B.max()), rows[0].shape[1]), np.float32)
    for i, row_TC in enumerate(rows):
        series_BTC[i, : len(row_TC)] = row_TC
    return series_BTC, lengths_B


def _from_array(row: npt.NDArray[Any], channels: int, pointer: str) -> npt.NDArray[np.float32]:
    if row.ndim != 2 or row.shape[1] != channels or row.dtype.kind not in "fiu":
        raise fault(pointer, f"expected numbers [steps, {channels}], got {row.dtype} {list(row.shape)}")
    array = to_finite_float32(row)
    if array is None:
        step, channel = np.argwhere(~(np.abs(row) <= np.finfo(np.float32).max))[0].tolist()
        raise type_fault(f"{pointer}/{step}/{channel}", "a number that is finite in float32", float(row[step, channel]))
    return array
