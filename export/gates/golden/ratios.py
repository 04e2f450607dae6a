"""How far the outputs of a graph are from the golden values, in units of what is allowed.

Shapes: R rows of all cases.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from export.candidate import Candidate
from export.gates.cases import Array
from export.gates.golden.choice import ENOUGH
from export.gates.golden.pool import num_rows
from service.bundle import GoldenCase
from service.engine.verification.parity import row_ratios


@dataclass(frozen=True, kw_only=True)
class Ratios:
    """The largest difference of each row, relative to the limits of the replay and to the tolerance alone.

    Both are [R], and infinite where the graph fails. A row with a ratio above 1 refuses the graph.
    """

    to_limit: Array
    to_tolerance: Array


def measure_ratios(candidate: Candidate, cases: Sequence[GoldenCase], *, num_mandatory: int = 0) -> Ratios:
    """Run every case. Pixels beside floats are left out: each may round either way, and the floats show more.

    Once one of the first `num_mandatory` cases, which a bundle holds in any event, shows a difference out of tolerance
    that no row can show better, the rows of the cases behind it count as 0.
    """
    parts: list[Array] = []
    try:
        for number, case in enumerate(cases):
            parts.append(row_ratios(candidate.session, case))
            if number < num_mandatory and (parts[-1].max(1, initial=0) > (ENOUGH, 1)).all():
                break
    except (ValueError, RuntimeError):
        parts = [np.full((2, num_rows(case.inputs)), np.inf) for case in cases]
    parts += [np.zeros((2, num_rows(case.inputs))) for case in cases[len(parts) :]]
    to_limit, to_tolerance = np.concatenate(parts, axis=1)
    return Ratios(to_limit=to_limit, to_tolerance=to_tolerance)
