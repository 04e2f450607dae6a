"""Layers that treat all steps alike equal Keras' own."""

from typing import Any

import pytest
from keras import layers

from tests.export.sources.keras.comparison import assert_equal, assert_equal_rows, sequential


@pytest.mark.parametrize(
    "layer",
    [
        layers.Dense(5, activation="relu"),
        layers.Dense(5, use_bias=False, activation="softmax"),
        layers.Rescaling(0.5, offset=0.1),
        layers.Rescaling([0.1, 0.2, 0.3, 0.4], offset=[1.0, 2.0, 3.0, 4.0]),
        layers.Normalization(mean=[1.0, 2.0, 3.0, 4.0], variance=[1.0, 2.0, 3.0, 0.0]),
        layers.Normalization(mean=1.0, variance=3.0, invert=True),
        layers.Dropout(0.5),
        layers.SpatialDropout1D(0.5),
        layers.GaussianNoise(0.5),
        layers.Masking(),
    ],
    ids=lambda layer: layer.name,
)
def test_layer_equals_keras(layer: Any) -> None:
    model = sequential((None, 4), layer)
    assert_equal(model, sizes=(5,))
    assert_equal_rows(model)


@pytest.mark.parametrize("scale", [1 / 255, [0.1, 0.2, 0.3]])
def test_pixels_are_rescaled_as_in_keras(scale: Any) -> None:
    assert_equal(sequential((4, 4, 3), layers.Rescaling(scale, offset=-0.5), dtype="uint8"), sizes=(1,), batches=(2,))


@pytest.mark.parametrize("masks_zero", [False, True])
def test_embedding_equals_keras(masks_zero: bool) -> None:
    model = sequential((None,), layers.Embedding(7, 3, mask_zero=masks_zero), layers.LSTM(4), dtype="int32")
    assert_equal(model, sizes=(5,))
    assert_equal_rows(model)
