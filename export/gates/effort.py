"""How much of a large model is tried: each run reads all of its weights, so the gates make fewer runs.

Models without a data file are tried in full. The share of a larger one is that of FULL_BYTES in its size, and no number
falls below what a gate needs at least. Which elements are compared does not change: all of those that are computed.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from export.candidate import Candidate

FULL_BYTES = 1 << 26
T = TypeVar("T")


def scaled(candidate: Candidate, full: int, *, least: int) -> int:
    """How many runs, rows or mutants of `full` are made."""
    if candidate.data is None:
        return full
    return min(full, max(least, full * FULL_BYTES // candidate.model_bytes))


def sampled(candidate: Candidate, items: Sequence[T], *, least: int) -> list[T]:
    """The items of which a large model is tried at some: evenly spaced, with the first and the last."""
    number = scaled(candidate, len(items), least=least)
    return [items[i] for i in sorted({*np.linspace(0, len(items) - 1, number).round().astype(int).tolist()})]


def row_cost(candidate: Candidate, num_bytes: int) -> int:
    """The bytes that a golden row counts as: its own, or a share of the weights that each replay reads for it."""
    return num_bytes if candidate.data is None else max(num_bytes, candidate.model_bytes >> 16)
