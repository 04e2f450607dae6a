"""Numbers are compared with the range that a bundle proves in float32, and NaN is in no range."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.manifest import FINITE, ValueRange
from service.tasks.domain import describe_range, is_within, outside

FLOATS = st.floats(width=32)


@given(st.lists(FLOATS, min_size=1, max_size=9), st.floats(-9, 9, width=32), st.floats(0, 9, width=32))
def test_within_means_that_every_number_is_between_the_bounds(numbers: list[float], low: float, size: float) -> None:
    allowed = ValueRange(low=low, high=float(np.float32(low + size)))
    inside = [allowed.low <= number <= allowed.high for number in numbers]
    array = np.array(numbers, np.float32)
    assert is_within(array, allowed) is all(inside)
    assert outside(array, allowed).tolist() == [not value for value in inside]


@given(st.lists(FLOATS, min_size=1, max_size=9))
def test_without_a_domain_finite_numbers_are_accepted(numbers: list[float]) -> None:
    array = np.array(numbers, np.float32)
    assert is_within(array, FINITE) is bool(np.isfinite(array).all())
    assert outside(array, FINITE).tolist() == (~np.isfinite(array)).tolist()


def test_any_shape_is_checked_at_every_place() -> None:
    array = np.zeros((2, 3, 4), np.float32)
    for place in np.ndindex(array.shape):
        array[place] = np.nan
        assert not is_within(array, FINITE)
        array[place] = 0
    assert is_within(array, FINITE)


def test_ranges_are_described_exactly() -> None:
    assert describe_range(FINITE) == "that is finite in float32"
    low, high = float(np.float32(-0.1)), float(np.float32(1 / 3))
    assert describe_range(ValueRange(low=-0.1, high=1 / 3)) == f"of {json.dumps(low)} to {json.dumps(high)}"


@pytest.mark.parametrize("bound", [3.5e38, -3.5e38])
def test_bounds_are_finite_in_float32(bound: float) -> None:
    with pytest.raises(ValueError, match=r"(less|greater) than or equal"):
        ValueRange(low=min(bound, 0), high=max(bound, 0))
