"""What was measured is foretold, by quantiles of what came last; what was not is scaled from its neighbour."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.latency import LATE, USUAL, Latency, Window


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


def test_nothing_is_foretold_from_nothing() -> None:
    assert Latency().foretell(1, 0, USUAL) is None


def test_quantiles_of_the_bucket() -> None:
    latency = Latency()
    for i in range(40):
        latency.observe(8, 10, (i + 1) / 1000)
        latency.observe(1, 10, 7.0)
    assert latency.foretell(8, 10, USUAL) == pytest.approx(0.021)
    assert latency.foretell(5, 16, LATE) == pytest.approx(0.039)  # 5 to 8 rows and 9 to 16 steps are one bucket
    assert latency.foretell(1, 9, USUAL) == 7.0


def test_the_latest_measurements_count() -> None:
    latency = Latency()
    for seconds in [5.0] * 100 + [1.0] * 64:
        latency.observe(2, 0, seconds)
        latency.foretell(2, 0, LATE)
    assert latency.foretell(2, 0, LATE) == 1.0


def test_larger_shapes_are_foretold_in_proportion_and_smaller_ones_no_shorter() -> None:
    latency = Latency()
    latency.observe(4, 16, 1.0)
    assert latency.foretell(16, 16, USUAL) == pytest.approx(4.0)
    assert latency.foretell(8, 32, USUAL) == pytest.approx(4.0)
    assert latency.foretell(1, 16, USUAL) == pytest.approx(1.0)
    latency.observe(16, 16, 2.0)
    assert latency.foretell(16, 16, USUAL) == 2.0


def test_what_is_measured_later_is_foretold_where_a_neighbour_was_before() -> None:
    latency = Latency()
    latency.observe(4, 16, 1.0)
    for num_rows in (1, 4):
        assert latency.foretell(num_rows, 16, USUAL) is not None
    latency.observe(1, 16, 0.25)
    assert [latency.foretell(num_rows, 16, USUAL) for num_rows in (1, 4)] == [0.25, 1.0]
