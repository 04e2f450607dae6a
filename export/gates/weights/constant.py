"""One float constant, as the trained module uses it or as the exported graph reads it, and when the two agree."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
# Larger constants are compared in rows.
MANY_BYTES = 1 << 24


@dataclass(frozen=True, kw_only=True)
class SourceConstant:
    """A constant that the module uses.

    `names` are the parameters and buffers that it comes from; without any it is a literal of the code. `value` has the
    shape in which the operator of the module uses it, `stored` is the parameter itself, and `change` names what made
    the one of the other. If that was arithmetic, `exact` is its result in float64, and the graph's constant may be
    up to `max_rounding` away from it, relative to the largest element; otherwise the bits must be equal.
    """

    names: tuple[str, ...]
    value: Array
    stored: Array
    change: str = ""
    exact: Array | None = None
    max_rounding: float = 0.0

    @property
    def may_be_left_out(self) -> bool:
        """Whether a graph may do without it: a literal, which is folded, or a bias of zeros, which adds nothing."""
        return not self.names or (self.value.ndim == 1 and not self.value.any())

    def __str__(self) -> str:
        if not self.names:
            one = self.value.size == 1
            return f"the constant {self.value.item():g}" if one else f"a constant of the code {self.value.shape}"
        return " with ".join(f"'{name}'" for name in self.names) + f" {self.value.shape}"


@dataclass(frozen=True, kw_only=True)
class GraphConstant:
    """A constant that a node of the graph reads.

    `raw` is the content of the initializer or attribute. `value` is the part of it that one parameter must equal, in
    PyTorch's order of gates and axes; `change` names how the two differ.
    """

    name: str
    reader: str
    raw: Array
    value: Array
    change: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.raw.shape}"


def matches(found: GraphConstant, expected: SourceConstant) -> bool:
    """True if the graph's constant is the module's: bit by bit, or up to rounding if it may be rounded in two ways."""
    value = found.value
    if expected.value.size == 1 and not expected.names:
        return value.size > 0 and _same_bits(value, np.full_like(value, expected.value.item()))
    if _squeezed(value) != _squeezed(expected.value):
        return False
    if _same_bits(value, expected.value.reshape(value.shape)):
        return True
    return value.dtype == np.float32 and 0 < rounding(found, expected) <= expected.max_rounding


def transformation(found: GraphConstant, expected: SourceConstant) -> str:
    """How the initializer was made of the parameters that it holds."""
    if not expected.names:
        return "constant of the code"
    if found.change or expected.change:
        return found.change or expected.change
    if found.raw.shape == expected.stored.shape and _same_bits(found.raw, expected.stored):
        return "as it is"
    if found.raw.shape == expected.stored.T.shape and _same_bits(found.raw, expected.stored.T):
        return "transposed"
    return "reshaped"


def nearest(found: GraphConstant, candidates: Iterable[SourceConstant]) -> str:
    """A part of a sentence that names the constant whose values are nearest, and by how much they differ."""
    distances = [
        (_distance(found.value, one.value), str(one))
        for one in candidates
        if _squeezed(one.value) == _squeezed(found.value)
    ]
    if not distances:
        return "the model uses no constant of its shape"
    (largest, position), name = min(distances)
    return f"the nearest is {name}, which differs by {largest:.3g}" + (f" at {position}" if position else "")


def rounding(found: GraphConstant, expected: SourceConstant) -> float:
    """The distance of a computed constant from its value in float64, relative to its largest element."""
    if expected.exact is None:
        return 0.0
    exact = expected.exact.reshape(found.value.shape)
    return float(
        np.abs(found.value - exact).max(initial=0.0) / max(np.abs(exact).max(initial=0.0), np.finfo(float).tiny)
    )


def _same_bits(a: Array, b: Array) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape or a.itemsize not in UNSIGNED:
        return a.dtype == b.dtype and a.tobytes() == b.tobytes()
    # Numbers of the same size compare the bits without a copy, and row by row, because a weight may be large.
    bits = UNSIGNED[a.itemsize]
    rows, others = (a[None], b[None]) if a.nbytes < MANY_BYTES else (a, b)
    return all(np.array_equal(one.view(bits), other.view(bits)) for one, other in zip(rows, others, strict=True))


def _squeezed(array: Array) -> list[int]:
    return [size for size in array.shape if size != 1]


def _distance(a: Array, b: Array) -> tuple[float, list[int]]:
    """The largest difference and where it is; not-a-number counts as infinite."""
    difference = np.abs(a.astype(np.float64) - b.reshape(a.shape).astype(np.float64))
    difference = np.where(np.isnan(difference), np.inf, difference)
    position = np.unravel_index(int(difference.argmax()), difference.shape)
    return float(difference[position]), [int(index) for index in position]
