"""What a Keras model says of itself."""

from typing import Any

import pytest
from keras import layers

from export.errors import ExportError
from export.sources.keras.first_spec import draft_spec
from export.sources.keras.states import find_states
from export.spec import parse_spec
from tests.export.sources.keras.comparison import keras, sequential
from tests.export.sources.keras.test_states import stacked

SOFTMAX = {"activation": "none"}


def first_spec(model: Any, tmp_path: Any) -> dict[str, Any]:
    tables = draft_spec(model, find_states(model))
    parse_spec(tables, tmp_path / "spec.toml")
    return tables


def test_pixels_are_pictures_and_a_softmax_gives_labels(tmp_path: Any) -> None:
    model = sequential(
        (28, 28), layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(10, activation="softmax"), dtype="uint8"
    )
    tables = first_spec(model, tmp_path)
    assert tables["reader"] == {"kind": "image", "height": 28, "width": 28, "mode": "L", "layout": "NHW", "scale": 1.0}
    assert tables["head"] == {"kind": "labels", "labels": 10, **SOFTMAX}


def test_rescaled_floats_are_pictures(tmp_path: Any) -> None:
    model = sequential((32, 24, 3), layers.Rescaling(1 / 255), layers.Conv2D(4, 3), layers.GlobalAveragePooling2D())
    tables = first_spec(model, tmp_path)
    assert (tables["reader"]["mode"], tables["reader"]["layout"], tables["head"]["kind"]) == ("RGB", "NHWC", "tensors")


def test_other_pictures_need_a_spec(tmp_path: Any) -> None:
    model = sequential((32, 32, 3), layers.Conv2D(4, 3), layers.GlobalAveragePooling2D())
    with pytest.raises(ExportError, match=r"nothing says how pixels become its numbers; say it in a spec\.toml"):
        first_spec(model, tmp_path)


def test_series_with_a_state_label_each_step(tmp_path: Any) -> None:
    tables = first_spec(stacked(), tmp_path)
    assert tables["reader"] == {"kind": "series", "channels": 4, "state": {"layers": 2, "hidden": 5}}
    series = keras.Input((None, 4))
    y = layers.TimeDistributed(layers.Dense(3))(layers.LSTM(5, return_sequences=True)(series))
    assert first_spec(keras.Model(series, y), tmp_path)["head"] == {"kind": "tensors"}
    labelled = sequential((None, 4), layers.LSTM(5, return_sequences=True), layers.Dense(3, activation="softmax"))
    assert first_spec(labelled, tmp_path)["head"] == {"kind": "token-labels", "labels": 3, **SOFTMAX}


def test_other_inputs_are_tensors_by_their_names(tmp_path: Any) -> None:
    first, second = keras.Input((4,), name="first"), keras.Input((None,), dtype="int32", name="second")
    pooled = layers.GlobalMaxPooling1D()(layers.Embedding(7, 4)(second))
    tables = first_spec(keras.Model([first, second], layers.Add()([first, pooled])), tmp_path)
    assert tables["reader"]["inputs"] == [
        {"name": "first", "dtype": "float32", "shape": ["batch", 4]},
        {"name": "second", "dtype": "int32", "shape": ["batch", "second_1"]},
    ]
