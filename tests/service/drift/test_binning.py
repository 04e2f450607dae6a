"""Bins have about equal counts, two are empty, and no edge is a value."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.drift.binning import bin_categories, bin_numbers


def test_ten_bins_of_equal_counts_lie_between_two_empty_ones() -> None:
    values = np.random.default_rng(0).normal(size=1000)
    distribution = bin_numbers(values)
    assert distribution.counts == (0, *[100] * 10, 0)
    assert not set(distribution.edges) & set(values.tolist())
    assert distribution.edges[0] < values.min() <= values.max() < distribution.edges[-1]


@pytest.mark.parametrize("value", [0, 7, -3.5, 1e30])
def test_a_constant_has_one_bin_and_leaves_every_change_outside(value: float) -> None:
    distribution = bin_numbers(np.full(50, value))
    assert distribution.counts == (0, 50, 0)
    changed = abs(value) * 0.01 or 0.01
    assert distribution.count(np.array([value - changed, value, value + changed])).tolist() == [1, 1, 1]


def test_whole_numbers_are_cut_between_them() -> None:
    distribution = bin_numbers(np.repeat([1, 2, 3], [10, 80, 10]))
    assert distribution.edges[1:-1] == (1.5, 2.5)
    assert distribution.counts == (0, 10, 80, 10, 0)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-1e9, 1e9, width=32), min_size=1, max_size=60))
def test_every_value_is_counted_inside(values: list[float]) -> None:
    distribution = bin_numbers(np.array(values, np.float32))
    assert sum(distribution.counts) == len(values)
    assert distribution.counts[0] == distribution.counts[-1] == 0


def test_categories_are_counted_by_index() -> None:
    assert bin_categories(np.array([2, 0, 2]), 4).counts == (1, 0, 2, 0)
