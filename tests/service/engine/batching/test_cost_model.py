"""Predictions are quantiles of recent measurements; shapes without any are scaled from their nearest neighbour."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.batching.cost_model import MEDIAN, SLOW, CostModel, Window


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=60), st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0]))
def test_quantiles_are_those_of_the_last_values(values: list[float], share: float) -> None:
    window = Window(20)
    for value in values:
        window.add(value)
    last = values[-20:]
    assert len(window) == len(last)
    assert window.quantile(share) == np.sort(last)[min(int(share * len(last)), len(last) - 1)]


def test_an_empty_window_has_no_quantile() -> None:
    with pytest.raises(ValueError, match="empty"):
        Window(3).quantile(0.5)


def test_without_measurements_there_is_no_prediction() -> None:
    assert CostModel().predict(1, 0, MEDIAN) is None


def test_predictions_are_quantiles_of_the_shape_bucket() -> None:
    model = CostModel()
    for i in range(40):
        model.observe(8, 10, (i + 1) / 1000)
        model.observe(1, 10, 7.0)
    assert model.predict(8, 10, MEDIAN) == pytest.approx(0.021)
    assert model.predict(5, 16, SLOW) == pytest.approx(0.039)  # 5 to 8 rows and 9 to 16 steps are one bucket
    assert model.predict(1, 9, MEDIAN) == 7.0


def test_buckets_end_at_powers_of_two() -> None:
    model = CostModel()
    for i, (num_rows, num_steps) in enumerate([(8, 16), (8, 17), (9, 16), (9, 17), (1, 1), (1, 2), (2, 1)]):
        model.observe(num_rows, num_steps, float(i))
    shapes = [(8, 16), (8, 32), (16, 16), (16, 32), (1, 1), (1, 2), (2, 1)]
    assert [model.predict(*shape, MEDIAN) for shape in shapes] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    smallest = [(5, 9), (5, 17), (9, 9), (9, 17)]
    assert [model.predict(*shape, MEDIAN) for shape in smallest] == [0.0, 1.0, 2.0, 3.0]


def test_the_latest_measurements_count() -> None:
    model = CostModel()
    for seconds in [5.0] * 100 + [1.0] * 64:
        model.observe(2, 0, seconds)
        model.predict(2, 0, SLOW)
    assert model.predict(2, 0, SLOW) == 1.0


def test_larger_shapes_scale_up_and_smaller_ones_do_not_scale_down() -> None:
    model = CostModel()
    model.observe(4, 16, 1.0)
    assert model.predict(16, 16, MEDIAN) == pytest.approx(4.0)
    assert model.predict(8, 32, MEDIAN) == pytest.approx(4.0)
    assert model.predict(1, 16, MEDIAN) == pytest.approx(1.0)
    model.observe(16, 16, 2.0)
    assert model.predict(16, 16, MEDIAN) == 2.0


def test_a_measurement_replaces_the_prediction_from_a_neighbour() -> None:
    model = CostModel()
    model.observe(4, 16, 1.0)
    for num_rows in (1, 4):
        assert model.predict(num_rows, 16, MEDIAN) is not None
    model.observe(1, 16, 0.25)
    assert [model.predict(num_rows, 16, MEDIAN) for num_rows in (1, 4)] == [0.25, 1.0]
