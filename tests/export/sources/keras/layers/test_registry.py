"""Every layer of the registry is one of Keras, and has a test by its name."""

from pathlib import Path

import pytest
from keras import layers

from export.errors import ExportError
from export.sources.keras.layers.registry import CONVERTERS
from export.sources.keras.twin import build_twin
from tests.export.sources.keras.comparison import assert_equal, assert_equal_rows, sequential


@pytest.mark.parametrize("name", CONVERTERS)
def test_layer_is_one_of_keras(name: str) -> None:
    assert hasattr(layers, name)


def test_every_layer_is_compared_with_keras() -> None:
    tests = "\n".join(path.read_text() for path in Path(__file__).parent.parent.rglob("test_*.py"))
    absent = [name for name in CONVERTERS if f"layers.{name}" not in tests and f'"{name}"' not in tests]
    assert set(absent) <= {"Add", "Average", "Maximum", "Minimum", "Multiply", "Subtract"}  # merging.MERGES


@pytest.mark.parametrize(
    "layer",
    [
        layers.Identity(),
        layers.ActivityRegularization(l1=0.1),
        layers.AlphaDropout(0.5),
        layers.GaussianDropout(0.5),
        layers.SpatialDropout2D(0.5),
    ],
    ids=lambda layer: layer.name,
)
def test_what_only_trains_changes_nothing(layer: object) -> None:
    assert_equal(sequential((4, 4, 3), layer), batches=(2,), sizes=(1,))


@pytest.mark.parametrize(
    "child", [layers.Dense(3, activation="tanh"), layers.Activation("relu")], ids=["dense", "relu"]
)
def test_distributed_layer_equals_keras(child: object) -> None:
    model = sequential((None, 4), layers.Masking(), layers.TimeDistributed(child), layers.LSTM(3))
    assert_equal(model, sizes=(5,))
    assert_equal_rows(model)


def test_other_distributed_layers_are_refused() -> None:
    with pytest.raises(ExportError, match="distributes Flatten over the steps; expected one of Dense, Activation"):
        build_twin(sequential((None, 4, 2), layers.TimeDistributed(layers.Flatten())))
