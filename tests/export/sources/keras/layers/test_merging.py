"""Layers that merge values equal Keras' own."""

from typing import Any

import pytest
from keras import layers

from export.errors import ExportError
from export.sources.keras.layers.merging import MERGES
from export.sources.keras.twin import build_twin
from tests.export.sources.keras.comparison import assert_equal, assert_equal_rows, keras, randomized


def merged(layer: Any, *, masked: bool = False, other: Any = None) -> Any:
    """Two layers on one series, merged."""
    series = keras.Input((None, 4))
    x = layers.Masking()(series) if masked else series
    parts = [layers.Dense(4)(x), (other or layers.LSTM(4, return_sequences=True))(x)]
    return randomized(keras.Model(series, layers.GRU(3)(layer(parts))))


@pytest.mark.parametrize("name", [*MERGES, "Concatenate"])
def test_merge_of_series_equals_keras(name: str) -> None:
    model = merged(getattr(layers, name)())
    assert_equal(model, sizes=(5,))
    assert_equal_rows(model)


@pytest.mark.parametrize("name", ["Add", "Subtract", "Average", "Concatenate"])
def test_merge_of_one_mask_equals_keras(name: str) -> None:
    model = merged(getattr(layers, name)(), masked=True)
    assert_equal(model, sizes=(5,))
    assert_equal_rows(model)


def test_concatenation_along_another_axis_equals_keras() -> None:
    pictures = [keras.Input((4, 5, 2)), keras.Input((3, 5, 2))]
    assert_equal(keras.Model(pictures, layers.Concatenate(axis=1)(pictures)), sizes=(1,))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: merged(layers.Multiply(), masked=True), "is given the mask of layer"),
        (lambda: merged(layers.Concatenate(axis=1)), "joins steps of a free number"),
        (lambda: merged(layers.Add(), masked=True, other=layers.Conv1D(4, 1)), "values with different masks"),
        (lambda: merged(layers.Add(), other=layers.GlobalMaxPooling1D()), "different numbers of axes"),
    ],
    ids=["masked product", "steps", "different masks", "axes"],
)
def test_merges_without_a_twin_are_refused(model: Any, reason: str) -> None:
    with pytest.raises(ExportError, match=reason):
        build_twin(model(), series=0)
