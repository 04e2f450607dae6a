"""A .keras file becomes a source, and its bundle holds what Keras computes."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from keras import layers
from safetensors.numpy import save_file

from export.errors import ExportError
from export.graph.exporter import export_program, strip_metadata
from export.sources.keras.source import load
from tests.export.sources.keras.comparison import keras, randomized, sequential
from tests.export.sources.keras.test_states import stacked


def options(folder: Path, model: Any, arrays: dict[str, Any], spec: str = "") -> Namespace:
    model.save(folder / "My Model.keras")
    save_file(arrays, folder / "examples.safetensors")
    if spec:
        (folder / "spec.toml").write_text(spec)
    return Namespace(
        model=folder / "My Model.keras",
        examples=folder / "examples.safetensors",
        spec=folder / "spec.toml" if spec else None,
        name=None,
    )


def series(count: int = 24) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 9, count)
    return {"series": rng.normal(size=(count, 8, 4)).astype(np.float32), "lengths": lengths}


def assert_graph_equals_keras(source: Any, inputs: dict[str, Any]) -> None:
    """The exported graph equals the reference on rows of their own lengths."""
    session = onnxruntime.InferenceSession(strip_metadata(export_program(source)))
    names = [output.name for output in session.get_outputs()]
    actual = dict(zip(names, session.run(None, inputs), strict=True))
    expected = source.predict(inputs)
    for name in expected:
        np.testing.assert_allclose(actual[name], expected[name], atol=1e-5, err_msg=name)


def test_stateful_series_are_served_with_their_state(tmp_path: Path) -> None:
    found = load(options(tmp_path, randomized(stacked()), series()))
    source = found.source
    assert (source.name, source.reader.kind, source.head.kind) == ("my-model", "series", "tensors")


def test_labels_of_steps_with_a_state(tmp_path: Path) -> None:
    spec = '[reader]\nkind = "series"\nchannels = 4\nstate = { layers = 2, hidden = 5 }\n'
    spec += '[head]\nkind = "token-labels"\nlabels = ["a", "b", "c"]\n[limits]\nmax_steps = 20\n'
    source = load(options(tmp_path, randomized(stacked(swapped=True)), series(), spec)).source
    assert [output.name for output in source.outputs] == ["logits", "probabilities", "next_h", "next_c"]
    assert source.reference == "Keras"
    assert {"keras", "torch"} <= set(source.provenance.versions)
    rng = np.random.default_rng(1)
    lengths = np.array([9, 2, 5])
    inputs = {"series": rng.normal(size=(3, 9, 4)).astype(np.float32), "lengths": lengths}
    inputs |= {name: rng.normal(size=(3, 2, 5)).astype(np.float32) for name in ("h", "c")}
    assert_graph_equals_keras(source, inputs)


def test_masks_both_directions_and_every_cell_are_exported(tmp_path: Path) -> None:
    x = keras.Input((None, 4), name="series")
    y = layers.Bidirectional(layers.GRU(5, return_sequences=True))(layers.Masking()(x))
    y = layers.GRU(3, reset_after=False, return_sequences=True)(y)
    y = layers.SimpleRNN(4, activation="relu", go_backwards=True)(layers.Dropout(0.5)(y))
    model = randomized(keras.Model(x, layers.Dense(2, activation="softmax")(y)))
    source = load(options(tmp_path, model, series())).source
    assert (source.reader.kind, source.head.kind) == ("series", "labels")
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(3, 9, 4)).astype(np.float32)
    rows[0, 3] = rows[2, 0] = 0
    assert_graph_equals_keras(source, {"series": rows, "lengths": np.array([9, 2, 5])})


def test_pictures_are_exported(tmp_path: Path) -> None:
    parts = [
        layers.Rescaling(1 / 127.5, offset=-1),
        layers.Conv2D(4, 3, strides=2, padding="same", use_bias=False),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.SeparableConv2D(4, 3, padding="same"),
        layers.MaxPooling2D(2),
        layers.Flatten(),
        layers.Dense(3, activation="softmax"),
    ]
    images = np.random.default_rng(0).integers(0, 256, (16, 12, 12, 3), dtype=np.uint8)
    source = load(options(tmp_path, sequential((12, 12, 3), *parts), {"images": images})).source
    assert (source.reader.kind, source.labels) == ("image", ("0", "1", "2"))
    assert_graph_equals_keras(source, {"images": images[:5]})


def test_another_state_than_the_models_is_refused(tmp_path: Path) -> None:
    spec = '[reader]\nkind = "series"\nchannels = 4\nstate = { layers = 1, hidden = 5 }\n'
    spec += '[head]\nkind = "token-labels"\nlabels = 3\n'
    with pytest.raises(ExportError, match="has 1 layers of size 5, the model carries 2 of size 5"):
        load(options(tmp_path, stacked(), series(), spec))


def test_a_softmax_over_probabilities_is_refused(tmp_path: Path) -> None:
    model = sequential((4,), layers.Dense(3, activation="softmax"))
    x = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
    spec = '[reader]\nkind = "tensors"\n[head]\nkind = "labels"\nlabels = 3\n'
    with pytest.raises(ValueError, match="holds probabilities already"):
        load(options(tmp_path, model, {model.inputs[0].name: x}, spec))
