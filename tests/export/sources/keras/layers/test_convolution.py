"""Convolutions equal Keras' own, with every padding and stride."""

from typing import Any

import pytest
from keras import layers

from export.errors import ExportError
from export.sources.keras.layers.convolution import same_padding
from export.sources.keras.twin import build_twin
from tests.export.sources.keras.comparison import assert_equal, assert_equal_rows, sequential


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("strides", [1, 2, 3])
@pytest.mark.parametrize("kernel", [2, 3, (2, 5)])
def test_strides_and_paddings_equal_keras(padding: str, strides: int, kernel: Any) -> None:
    options = {"strides": strides, "padding": padding}
    for layer in (
        layers.Conv2D(6, kernel, activation="relu", **options),
        layers.DepthwiseConv2D(kernel, depth_multiplier=2, **options),
        layers.Conv2DTranspose(3, kernel, **options),
    ):
        assert_equal(sequential((9, 8, 4), layer), batches=(2,), sizes=(1,))


@pytest.mark.parametrize(
    "layer",
    [
        layers.Conv2D(6, 3, dilation_rate=(2, 1), padding="same", groups=2, use_bias=False),
        layers.SeparableConv2D(6, 3, depth_multiplier=2, padding="same", activation="relu"),
        layers.Conv2DTranspose(6, 3, strides=2, output_padding=1, padding="same"),
        layers.Conv2DTranspose(6, 3, dilation_rate=2, padding="valid", use_bias=False),
    ],
    ids=lambda layer: layer.name,
)
def test_other_options_equal_keras(layer: Any) -> None:
    assert_equal(sequential((9, 8, 4), layer), batches=(2,), sizes=(1,))


def test_channels_first_equals_keras() -> None:
    parts = [layers.Conv2D(6, 3, data_format="channels_first"), layers.MaxPooling2D(data_format="channels_first")]
    assert_equal(sequential((4, 9, 8), *parts, layers.Flatten(data_format="channels_first")), sizes=(1,))


@pytest.mark.parametrize("strides", [1, 2])
def test_pictures_of_free_size_equal_keras(strides: int) -> None:
    assert_equal(sequential((None, None, 3), layers.Conv2D(4, 3, strides=strides, padding="same")), sizes=(7, 8))


@pytest.mark.parametrize(
    "layer",
    [
        layers.Conv1D(5, 3, padding="same", activation="relu"),
        layers.Conv1D(5, 4, padding="causal", dilation_rate=2),
        layers.Conv1D(5, 1),
        layers.DepthwiseConv1D(2, padding="same"),
        layers.SeparableConv1D(5, 3, padding="same"),
    ],
    ids=lambda layer: layer.name,
)
def test_convolution_over_steps_equals_keras_on_each_row_alone(layer: Any) -> None:
    model = sequential((None, 4), layer, layers.Conv1D(3, 3, padding="same"))
    assert_equal(model, sizes=(5,))
    assert_equal_rows(model)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (layers.Conv1D(5, 3), "needs 3 steps, and a series of free length may have one; use padding='same'"),
        (layers.Conv1D(5, 3, strides=2, padding="same"), "skips steps of a series of free length"),
        (layers.Conv1DTranspose(5, 3), "mixes the steps"),
    ],
    ids=["valid", "strides", "transposed"],
)
def test_what_depends_on_a_rows_length_is_refused(layer: Any, reason: str) -> None:
    with pytest.raises(ExportError, match=reason):
        build_twin(sequential((None, 4), layer), series=0)


def test_the_odd_element_of_a_padding_comes_last() -> None:
    assert same_padding(5, 2, 1, 1) == (0, 1)
    assert same_padding(5, 3, 2, 1) == (1, 1)
    assert same_padding(6, 3, 2, 1) == (0, 1)
    assert same_padding(4, 1, 3, 1) == (0, 0)
