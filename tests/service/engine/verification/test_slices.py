"""Slices are small, in order, and cover every element once."""

from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.verification.slices import slices


@given(st.lists(st.integers(0, 5), max_size=4).map(tuple), st.integers(1, 40))
def test_slices_cover_every_element_once_in_order(shape: tuple[int, ...], max_elements: int) -> None:
    elements = np.arange(prod(shape)).reshape(shape)
    parts = [elements[index] for index in slices(shape, max_elements)]
    assert np.concatenate([part.ravel() for part in parts]).tolist() == elements.ravel().tolist()
    assert all(part.size <= max_elements for part in parts)


@pytest.mark.parametrize("shape", [(), (3,), (0, 7)])
def test_a_small_array_is_one_part(shape: tuple[int, ...]) -> None:
    assert list(slices(shape)) == [()]
