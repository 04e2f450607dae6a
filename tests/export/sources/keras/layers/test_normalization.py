"""Normalisation layers equal Keras' own."""

from typing import Any

import pytest
from keras import layers

from export.errors import ExportError
from export.sources.keras.twin import build_twin
from tests.export.sources.keras.comparison import assert_equal, assert_equal_rows, sequential


@pytest.mark.parametrize(
    "layer",
    [
        layers.BatchNormalization(),
        layers.BatchNormalization(axis=1, center=False, scale=False),
        layers.LayerNormalization(),
        layers.LayerNormalization(center=False),
        layers.LayerNormalization(scale=False),
        layers.GroupNormalization(3),
        layers.GroupNormalization(-1, scale=False),
        layers.GroupNormalization(2, axis=1, center=False),
    ],
    ids=lambda layer: layer.name,
)
def test_layer_equals_keras(layer: Any) -> None:
    assert_equal(sequential((4, 5, 6), layer), batches=(3,), sizes=(1,))


def test_rows_of_their_own_lengths() -> None:
    assert_equal_rows(sequential((None, 4), layers.BatchNormalization(), layers.LayerNormalization()))


def test_group_normalization_over_free_steps_is_refused() -> None:
    with pytest.raises(ExportError, match="mixes the steps of a series of free length"):
        build_twin(sequential((None, 4), layers.GroupNormalization(2)), series=0)


def test_layer_normalization_over_other_axes_is_refused() -> None:
    with pytest.raises(ExportError, match="expected the last axis"):
        build_twin(sequential((3, 4), layers.LayerNormalization(axis=1)))
