"""Activations equal Keras' own."""

from typing import Any

import pytest
from keras import layers

from export.errors import ExportError
from export.sources.keras.layers.activations import ACTIVATIONS, activation_name
from export.sources.keras.twin import build_twin
from tests.export.sources.keras.comparison import assert_equal, assert_equal_rows, keras, sequential


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_equals_keras(name: str) -> None:
    assert_equal(sequential((6,), layers.Activation(name)), batches=(4,), sizes=(5,), scale=3.0)


def test_every_activation_of_keras_is_there_or_known_to_be_absent() -> None:
    names = {getattr(keras.activations, name).__name__ for name in dir(keras.activations) if not name.startswith("_")}
    assert names - set(ACTIVATIONS) == {"deserialize", "get", "serialize", "sparsemax", "threshold"}


@pytest.mark.parametrize(
    "layer",
    [
        layers.ReLU(),
        layers.ReLU(max_value=1.0, negative_slope=0.1, threshold=0.2),
        layers.ReLU(negative_slope=0.1),
        layers.LeakyReLU(),
        layers.ELU(0.5),
        layers.PReLU(),
        layers.PReLU(shared_axes=[1]),
        layers.Softmax(),
        layers.Softmax(axis=1),
    ],
    ids=lambda layer: layer.name,
)
def test_layer_equals_keras(layer: Any) -> None:
    assert_equal(sequential((4, 6), layer), batches=(3,), sizes=(5,))


def test_shared_slopes_take_rows_of_their_own_lengths() -> None:
    assert_equal_rows(sequential((None, 4), layers.PReLU(shared_axes=[1]), layers.Softmax()))


def test_function_of_ones_own_is_no_activation() -> None:
    def declared(x: Any) -> Any:
        return x + 1

    assert activation_name(keras.activations.gelu) == "gelu"
    assert activation_name(declared) is None
    with pytest.raises(ExportError, match="has the activation 'own'; expected one of linear, relu"):
        build_twin(sequential((4,), layers.Activation(declared)))


def test_softmax_over_free_steps_is_refused() -> None:
    with pytest.raises(ExportError, match="steps of a free number"):
        build_twin(sequential((None, 4), layers.Softmax(axis=1)), series=0)


def test_softmax_over_two_axes_is_refused() -> None:
    with pytest.raises(ExportError, match=r"over the axes \[1, 2\]; expected one axis"):
        build_twin(sequential((3, 4), layers.Softmax(axis=(1, 2))))
