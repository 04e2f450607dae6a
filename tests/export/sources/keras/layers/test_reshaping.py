"""Layers that move elements equal Keras' own."""

from typing import Any

import pytest
from keras import layers

from export.errors import ExportError
from export.sources.keras.twin import build_twin
from tests.export.sources.keras.comparison import assert_equal, sequential


@pytest.mark.parametrize(
    "layer",
    [
        layers.Flatten(),
        layers.Flatten(data_format="channels_first"),
        layers.Reshape((6, -1)),
        layers.Permute((3, 1, 2)),
        layers.ZeroPadding2D(((1, 2), (0, 3))),
        layers.ZeroPadding2D(1, data_format="channels_first"),
        layers.UpSampling2D((2, 3)),
        layers.UpSampling2D((2, 3), interpolation="bilinear"),
        layers.UpSampling2D(2, data_format="channels_first"),
    ],
    ids=lambda layer: layer.name,
)
def test_layer_equals_keras(layer: Any) -> None:
    assert_equal(sequential((4, 3, 2), layer), batches=(2,), sizes=(1,))


@pytest.mark.parametrize("padding", [2, (1, 2)])
def test_steps_are_padded_as_in_keras(padding: Any) -> None:
    assert_equal(sequential((4, 3), layers.ZeroPadding1D(padding)), batches=(2,), sizes=(1,))


def test_other_interpolations_are_refused() -> None:
    with pytest.raises(ExportError, match="interpolates with 'bicubic'; expected 'nearest' or 'bilinear'"):
        build_twin(sequential((4, 3, 2), layers.UpSampling2D(2, interpolation="bicubic")))


@pytest.mark.parametrize("layer", [layers.Permute((2, 1)), layers.ZeroPadding1D(1)], ids=["permute", "padding"])
def test_free_steps_are_refused(layer: Any) -> None:
    with pytest.raises(ExportError, match="mixes the steps of a series of free length"):
        build_twin(sequential((None, 4), layer), series=0)
