"""Exact quantiles of what came last."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.quantiles import Window


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=60), st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0]))
def test_quantiles_are_those_of_the_last_values(values: list[float], share: float) -> None:
    window = Window(20)
    for value in values:
        window.add(value)
    last = values[-20:]
    assert len(window) == len(last)
    assert window.quantile(share) == np.sort(last)[min(int(share * len(last)), len(last) - 1)]


def test_an_empty_window_has_none() -> None:
    with pytest.raises(ValueError, match="no value"):
        Window(3).quantile(0.5)
