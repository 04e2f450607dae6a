"""Rows are chosen by the margins of the mutants, within the budget, and regrouped without a change."""

import numpy as np

from export.gates.golden.choice import choose_rows, regroup
from service.bundle import GoldenCase


def choose(ratios: list[list[float]], *, mandatory: list[float] | None = None, max_bytes: int = 2) -> list[int]:
    return choose_rows(
        np.array(ratios),
        np.ones(len(ratios[0])),
        max_bytes=max_bytes,
        mandatory_M=np.array(mandatory or [0.0] * len(ratios)),
    )


def test_the_row_that_kills_most_mutants_comes_first() -> None:
    assert choose([[0.1, 4, 0], [0, 4, 0.1], [8, 0, 0.1]]) == [1, 0]


def test_what_mandatory_rows_kill_needs_no_other_row() -> None:
    assert choose([[4, 0, 0], [0, 0, 2]], mandatory=[64, 0], max_bytes=1) == [2]


def test_a_mutant_that_differs_by_64_times_the_limit_needs_no_other_row() -> None:
    assert choose([[200, 0], [0, 1.5]], mandatory=[64, 1], max_bytes=1) == [1]


def test_failing_graphs_are_killed_by_any_row() -> None:
    assert choose([[np.inf] * 3, [0, 0, 9]], max_bytes=1) == [2]


def test_rows_without_gain_fill_the_budget_in_the_order_of_the_pool() -> None:
    assert choose([[0, 0, 0, 9]], max_bytes=3) == [3, 0, 1]


def test_rows_beyond_the_budget_are_passed_over() -> None:
    chosen = choose_rows(np.array([[9.0, 4.0, 2.0]]), np.array([7, 2, 1]), max_bytes=3, mandatory_M=np.zeros(1))
    assert chosen == [1, 2]


def test_regrouped_rows_keep_inputs_and_outputs_together() -> None:
    wide = GoldenCase(inputs={"x": np.arange(20).reshape(5, 4)}, outputs={"y": np.arange(5) * 10})
    narrow = GoldenCase(inputs={"x": np.arange(100, 106).reshape(3, 2)}, outputs={"y": np.arange(3) + 1000})
    cases = list(regroup((wide, narrow), [7, 0, 3, 4, 5, 1], max_items=3))
    assert sorted(len(case.inputs["x"]) for case in cases) == [1, 1, 1, 1, 2]
    pairs = {(tuple(x), int(y)) for case in cases for x, y in zip(case.inputs["x"], case.outputs["y"], strict=True)}
    rows = [(wide, row) for row in (0, 1, 3, 4)] + [(narrow, row) for row in (0, 2)]
    assert pairs == {(tuple(case.inputs["x"][row]), int(case.outputs["y"][row])) for case, row in rows}


def test_regrouped_rows_have_the_batch_sizes_at_which_kernels_differ() -> None:
    case = GoldenCase(inputs={"x": np.zeros((80, 1))}, outputs={"y": np.zeros(80)})
    sizes = [len(one.inputs["x"]) for one in regroup([case], range(80), max_items=64)]
    assert sizes == [1, 2, 3, 4, 7, 8, 16, 32, 7]
