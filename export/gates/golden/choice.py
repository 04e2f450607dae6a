"""The choice of golden rows: greedily those by which mutants differ most from the reference.

A row kills a mutant if an output differs by more than the goldens allow at load. The margin of a mutant is the largest
ratio of a difference to what is allowed, over the chosen rows. Each step adds the row that increases the margins of all
mutants most, on a logarithmic scale. Rows that add nothing fill the rest of the budget in the order of the pool, which
alternates between its sources, because other mutants than these must be killed too.

Shapes: M mutants, R rows of the pool.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from export.gates.cases import Array
from service.bundle import GoldenCase, Tensors

# A difference of so many times the limit needs no better row.
ENOUGH = 64.0
MIN_GAIN = 0.01  # of one margin
BATCHES = (1, 2, 3, 4, 7, 8, 16, 32, 64)


def choose_rows(ratios_MR: Array, row_bytes_R: Array, *, max_bytes: int, mandatory_M: Array) -> list[int]:
    """Return the rows to add to the mandatory ones, whose largest ratio for each mutant is `mandatory_M`."""
    margins_MR = np.log2(np.clip(ratios_MR, 2.0**-8, ENOUGH))
    best_M = np.log2(np.clip(mandatory_M, 2.0**-8, ENOUGH))
    chosen: list[int] = []
    size_bytes = 0
    for row in (*_greedy(margins_MR, best_M), *range(ratios_MR.shape[1])):
        if row not in chosen and size_bytes + row_bytes_R[row] <= max_bytes:
            chosen.append(row)
            size_bytes += int(row_bytes_R[row])
    return chosen


def _greedy(margins_MR: npt.NDArray[np.float64], best_M: npt.NDArray[np.float64]) -> Iterator[int]:
    while margins_MR.size:
        gains_R = np.maximum(margins_MR - best_M[:, None], 0).sum(0)
        row = int(gains_R.argmax())
        if gains_R[row] < MIN_GAIN:
            return
        best_M = np.maximum(best_M, margins_MR[:, row])
        yield row


def regroup(cases: Sequence[GoldenCase], rows: Sequence[int], max_items: int) -> Iterator[GoldenCase]:
    """The chosen rows as cases of various batch sizes. Rows of one case have the same shapes."""
    starts = np.cumsum([0, *(len(next(iter(case.inputs.values()))) for case in cases)])
    places = [(int(np.searchsorted(starts, row, "right")) - 1, row) for row in sorted(rows)]
    by_shape: dict[tuple[object, ...], list[GoldenCase]] = {}
    for number, row in places:
        single = _row(cases[number], row - int(starts[number]))
        shape = tuple((name, array.shape) for name, array in sorted(single.inputs.items()))
        by_shape.setdefault(shape, []).append(single)
    sizes = [size for size in BATCHES if size <= max_items]
    for singles in by_shape.values():
        while singles:
            size = sizes.pop(0)
            sizes.append(size)
            yield _joined(singles[:size])
            del singles[:size]


def _row(case: GoldenCase, row: int) -> GoldenCase:
    parts = ({name: array[row : row + 1] for name, array in side.items()} for side in (case.inputs, case.outputs))
    return GoldenCase(**dict(zip(("inputs", "outputs"), parts, strict=True)))


def _joined(singles: Sequence[GoldenCase]) -> GoldenCase:
    def join(sides: Sequence[Tensors]) -> Tensors:
        return {name: np.concatenate([side[name] for side in sides]) for name in sides[0]}

    return GoldenCase(inputs=join([case.inputs for case in singles]), outputs=join([case.outputs for case in singles]))
