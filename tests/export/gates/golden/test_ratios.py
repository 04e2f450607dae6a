"""Ratios are those of the replay, and infinite for a graph that fails."""

from dataclasses import replace

import numpy as np

from export.gates.golden.gate import with_rounding
from export.gates.golden.pool import draw_pool
from export.gates.golden.ratios import measure_ratios
from export.gates.golden.reference import reference_cases
from tests.export.conftest import Candidates


def test_a_correct_graph_has_ratios_below_one_and_a_broken_one_infinite_ratios(candidates: Candidates) -> None:
    candidate = candidates("tiny-lstm")
    cases, rounding = reference_cases(candidate, draw_pool(candidate, seed=0).mandatory)
    rounded = with_rounding(candidate, rounding)
    ratios = measure_ratios(rounded, cases)
    num_rows = sum(len(case.inputs["lengths"]) for case in cases)
    assert ratios.to_limit.shape == ratios.to_tolerance.shape == (num_rows,)
    assert (ratios.to_tolerance <= ratios.to_limit).all()
    assert ratios.to_limit.max() < 1
    broken = measure_ratios(replace(rounded, model=b"no graph"), cases)
    assert np.isinf(broken.to_limit).all()
    assert np.isinf(broken.to_tolerance).all()
