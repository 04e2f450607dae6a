"""Mutants of stored values, each of one tensor or attribute.

Single values change by 0.001 to 10 standard deviations of their tensor; rows, columns and whole tensors change as a
slip of an export would change them.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from export.candidate import Candidate
from export.mutation.mutant import SINGLE_WEIGHT, Mutant
from export.mutation.stored import MIN_WEIGHTS, StoredValues, stored_values
from service.engine.verification.slices import slices

Array = npt.NDArray[Any]
Change = Callable[[Array, np.random.Generator], tuple[Array, str]]
# In standard deviations of the tensor.
SINGLE_SIZES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
# In relation to the value: what a rounding or a unit would change, and what a typing error would.
RELATIVE_SIZES = (1e-3, 1e-2, 0.1, 1.0)
NUM_GATES = 4
# Larger values are changed again when they are needed: those of all mutants together would not fit into memory.
MAX_STORED_BYTES = 1 << 20


def draw_weight_mutant(suitable: list[StoredValues], kind: str, rng: np.random.Generator) -> Mutant | None:
    """Return a random mutant of this kind (a key of CHANGES) of suitable values, or None if there are none."""
    if not suitable:
        return None
    _, change = CHANGES[kind]
    stored = suitable[rng.integers(len(suitable))]
    before, state = stored.values, copy.deepcopy(rng)
    after, place = change(before.copy(), rng)
    if np.array_equal(after, before):
        return None
    size = _largest_change(before, after)
    stored_change = after if after.nbytes <= MAX_STORED_BYTES else None

    def apply(candidate: Candidate) -> Candidate:
        again = change(before.copy(), copy.deepcopy(state))[0] if stored_change is None else stored_change
        return stored.put(candidate, again)

    return Mutant(kind=kind, location=f"{stored.name}{place}", size=size, apply=apply)


def _largest_change(before: Array, after: Array) -> float:
    largest = 0.0
    for index in slices(before.shape):
        one, other = np.atleast_1d(before[index], after[index])
        distance = np.abs(other - one if one.dtype.kind == "i" else other.astype(np.float64) - one)
        largest = max(largest, float(distance[np.isfinite(distance)].max(initial=0.0)))
    return largest


def suitable_values(candidate: Candidate) -> dict[str, list[StoredValues]]:
    """The kinds that some values of the graph admit, each with those values."""
    by_kind: dict[str, list[StoredValues]] = {}
    everything = stored_values(candidate)
    for kind, (accepts, _) in CHANGES.items():
        suitable = [stored for stored in everything if accepts(stored)]
        if suitable:
            by_kind[kind] = suitable
    return by_kind


def _is_float(stored: StoredValues) -> bool:
    return stored.is_float


def _is_weights(stored: StoredValues) -> bool:
    return stored.is_weights


def _is_matrix(stored: StoredValues) -> bool:
    return stored.is_weights and _as_matrix(stored.values).ndim == 2


def _is_vector(stored: StoredValues) -> bool:
    return stored.is_weights and _as_matrix(stored.values).ndim == 1


def _is_statistic(stored: StoredValues) -> bool:
    return stored.is_float and any(part in stored.name for part in ("mean", "std", "var"))


def _is_constant(stored: StoredValues) -> bool:
    return stored.values.size < MIN_WEIGHTS and stored.values.dtype.kind == "f" and not _is_statistic(stored)


def _is_count(stored: StoredValues) -> bool:
    return stored.values.dtype.kind == "i"


def _is_gated(stored: StoredValues) -> bool:
    """Weights of a recurrent operator with gates: a leading axis of directions, then the gates."""
    values = stored.values
    return stored.is_weights and values.ndim >= 2 and values.shape[0] == 1 and values.shape[1] % NUM_GATES == 0


def _as_matrix(values: Array) -> Array:
    """A view without axes of one element, in which all axes but the first are joined."""
    squeezed = values.reshape([size for size in values.shape if size > 1] or [1])
    return squeezed.reshape(len(squeezed), -1) if squeezed.ndim > 1 else squeezed


def _single(values: Array, rng: np.random.Generator) -> tuple[Array, str]:
    index = tuple(int(rng.integers(size)) for size in values.shape)
    step = rng.choice(SINGLE_SIZES) * values.std()
    match int(rng.integers(8)):
        case 0:
            values[index] = 0
        case 1:
            values[index] = -values[index]
        case _:
            values[index] += step * rng.choice((-1, 1))
    return values, f"[{', '.join(map(str, index))}]"


def _row(values: Array, rng: np.random.Generator) -> tuple[Array, str]:
    matrix = _as_matrix(values)
    row = int(rng.integers(len(matrix)))
    matrix[row] = _disturbed(matrix[row], values.std(), rng)
    return values, f", row {row}"


def _column(values: Array, rng: np.random.Generator) -> tuple[Array, str]:
    matrix = _as_matrix(values)
    column = int(rng.integers(matrix.shape[1]))
    matrix[:, column] = _disturbed(matrix[:, column], values.std(), rng)
    return values, f", column {column}"


def _disturbed(part: Array, scale: float, rng: np.random.Generator) -> Array:
    size = rng.choice((0.1, 0.3, 1.0))
    match int(rng.integers(4)):
        case 0:
            return np.zeros_like(part)
        case 1:
            return -part
        case 2:
            return part * np.float32(1 + size)
        case _:
            return part + (size * scale * rng.standard_normal(part.shape)).astype(np.float32)


def _scaled(values: Array, rng: np.random.Generator) -> tuple[Array, str]:
    factor = 1 + rng.choice((-1, 1)) * rng.choice(RELATIVE_SIZES[:3])
    # The lowest number of float32, which masks scores, becomes an infinity.
    with np.errstate(over="ignore"):
        return values * np.float32(factor), f" times {factor:g}"


def _shifted(values: Array, rng: np.random.Generator) -> tuple[Array, str]:
    step = rng.choice((-1, 1)) * rng.choice((0.01, 0.1, 1.0)) * values.std()
    return values + np.float32(step), f" plus {step:.3g}"


def _negated(values: Array, _: np.random.Generator) -> tuple[Array, str]:
    return -values, ", negated"


def _noisy(values: Array, rng: np.random.Generator) -> tuple[Array, str]:
    size = rng.choice((0.01, 0.1, 1.0))
    noise = size * values.std() * rng.standard_normal(values.shape)
    return values + noise.astype(np.float32), f" with noise of {size:g}"


def _drawn_again(values: Array, rng: np.random.Generator) -> tuple[Array, str]:
    return rng.normal(values.mean(), values.std(), values.shape).astype(np.float32), ", drawn again"


def _rounded(values: Array, rng: np.random.Generator) -> tuple[Array, str]:
    if rng.integers(2):
        return values.astype(np.float16).astype(np.float32), ", in half precision"
    step = np.float32(np.abs(values).max() / 127)
    return np.round(values / step) * step, ", in 8 bits"


def _bias(values: Array, rng: np.random.Generator) -> tuple[Array, str]:
    index = int(rng.integers(values.size))
    values.reshape(-1)[index] += np.float32(rng.choice((-1, 1)) * rng.choice((0.03, 0.3, 3.0)) * values.std())
    return values, f"[{index}]"


def _statistic(values: Array, rng: np.random.Generator) -> tuple[Array, str]:
    index = int(rng.integers(values.size))
    factor = 1 + rng.choice((-1, 1)) * rng.choice((1e-2, 0.1, 0.5))
    values.reshape(-1)[index] *= np.float32(factor)
    return values, f"[{index}] times {factor:g}"


def _constant(values: Array, rng: np.random.Generator) -> tuple[Array, str]:
    if not np.isfinite(values).all():
        return np.full_like(values, rng.choice((-1e4, -10, 0))), ", finite"
    factor = 1 + rng.choice((-1, 1)) * rng.choice((1 / 256, 0.1, 0.5))
    # The lowest number of float32, which masks scores, becomes an infinity.
    with np.errstate(over="ignore"):
        return values * np.float32(factor), f" times {factor:g}"


def _count(values: Array, rng: np.random.Generator) -> tuple[Array, str]:
    index, step = int(rng.integers(values.size)), int(rng.choice((-1, 1)))
    flat = values.reshape(-1)
    # The end of a slice may be the largest number.
    step = -1 if flat[index] == np.iinfo(np.int64).max else step
    flat[index] += step
    return values, f"[{index}] {step:+d}"


def _gates(values: Array, rng: np.random.Generator) -> tuple[Array, str]:
    gates = values.reshape(-1, NUM_GATES, values.shape[1] // NUM_GATES, *values.shape[2:])
    first, second = rng.choice(NUM_GATES, 2, replace=False)
    gates[:, [first, second]] = gates[:, [second, first]]
    return values, f", gates {first} and {second} swapped"


def _rows_swapped(values: Array, rng: np.random.Generator) -> tuple[Array, str]:
    matrix = _as_matrix(values)
    first, second = rng.choice(len(matrix), 2, replace=False)
    matrix[[first, second]] = matrix[[second, first]]
    return values, f", rows {first} and {second} swapped"


def _columns_swapped(values: Array, rng: np.random.Generator) -> tuple[Array, str]:
    matrix = _as_matrix(values)
    if matrix.shape[1] < 2:
        return values, ""
    first, second = rng.choice(matrix.shape[1], 2, replace=False)
    matrix[:, [first, second]] = matrix[:, [second, first]]
    return values, f", columns {first} and {second} swapped"


def _rows_rolled(values: Array, _: np.random.Generator) -> tuple[Array, str]:
    matrix = _as_matrix(values)
    matrix[:] = np.roll(matrix, 1, axis=0)
    return values, ", rows shifted by one"


Accepts = Callable[[StoredValues], bool]
CHANGES: Mapping[str, tuple[Accepts, Change]] = {
    SINGLE_WEIGHT: (_is_weights, _single),
    "bias": (_is_vector, _bias),
    "row": (_is_matrix, _row),
    "column": (_is_matrix, _column),
    "scale": (_is_float, _scaled),
    "shift": (_is_weights, _shifted),
    "sign": (_is_float, _negated),
    "noise": (_is_weights, _noisy),
    "random layer": (_is_matrix, _drawn_again),
    "precision": (_is_matrix, _rounded),
    "statistic": (_is_statistic, _statistic),
    "constant": (_is_constant, _constant),
    "count": (_is_count, _count),
    "gates": (_is_gated, _gates),
    "rows swapped": (_is_matrix, _rows_swapped),
    "columns swapped": (_is_matrix, _columns_swapped),
    "rows shifted": (_is_weights, _rows_rolled),
}
