"""Ratios are those of the replay, and infinite for a graph that fails."""

from dataclasses import replace

import numpy as np

from export.gates.golden.choice import ENOUGH
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


def test_cases_behind_a_mandatory_one_that_shows_enough_are_not_run(candidates: Candidates) -> None:
    candidate = candidates("tiny-lstm")
    cases, rounding = reference_cases(candidate, draw_pool(candidate, seed=0).mandatory[:3])
    rounded = with_rounding(candidate, rounding)
    moved = {name: array + 1 for name, array in cases[0].outputs.items()}
    first = replace(cases[0], outputs=moved)
    ratios = measure_ratios(rounded, (first, *cases[1:]), num_mandatory=1)
    num_first = len(first.inputs["lengths"])
    assert ratios.to_limit[:num_first].max() > ENOUGH
    assert not ratios.to_limit[num_first:].any()
    # An optional case stops nothing, because the choice of rows needs the ratios of all of them.
    ratios = measure_ratios(rounded, (*cases[1:], first), num_mandatory=1)
    assert (ratios.to_limit > 0).all()
