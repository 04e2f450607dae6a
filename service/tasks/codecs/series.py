"""Converts series of numbers to arrays, and pads the rows of a batch.

Invariant: a row is float32 [steps, channels] with 1 to `max_steps` steps, every number in the domain of the model. A
batch is zero-padded, with lengths.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from service.manifest import Manifest
from service.tasks.codecs.json_arrays import parse_numbers, to_float32
from service.tasks.domain import describe_range, is_within, outside
from service.tasks.faults import fault, type_fault


def read_series(row: Any, manifest: Manifest, *, channels: int, pointer: str) -> npt.NDArray[np.float32]:
    """Convert nested lists or an array of numbers to one row; raises EkibenError("invalid-request")."""
    max_steps, allowed = manifest.limits.max_steps, manifest.value_range("series")
    if isinstance(row, list | np.ndarray) and max_steps is not None and not 1 <= len(row) <= max_steps:
        raise fault(pointer, f"expected 1 to {max_steps} steps, got {len(row)}")
    if not isinstance(row, np.ndarray):
        return parse_numbers(row, channels, allowed, pointer)
    if row.ndim != 2 or row.shape[1] != channels or row.dtype.kind not in "fiu" or not len(row):
        raise fault(pointer, f"expected numbers [steps, {channels}], got {row.dtype} {list(row.shape)}")
    array = to_float32(row)
    if not is_within(array, allowed):
        step, channel = np.argwhere(outside(array, allowed))[0].tolist()
        expected, got = f"a number {describe_range(allowed)}", float(row[step, channel])
        raise type_fault(f"{pointer}/{step}/{channel}", expected, got)
    return array


def pad_rows(rows: Sequence[Any], dtype: npt.DTypeLike, *width: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Pad series or token ids with zeros to the longest row; returns [batch, steps, *width] and lengths [batch]."""
    lengths_B = np.array([len(row) for row in rows], np.int64)
    padded_BT = np.zeros((len(rows), int(lengths_B.max()), *width), dtype)
    for i, row in enumerate(rows):
        padded_BT[i, : len(row)] = row
    return padded_BT, lengths_B
