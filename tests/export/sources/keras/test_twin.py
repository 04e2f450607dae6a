"""The twin of whole models: several inputs and outputs, shared and nested layers, and what has no twin."""

from typing import Any

import pytest
import torch
from keras import layers

from export.errors import ExportError
from export.sources.keras.loading import load_model
from export.sources.keras.twin import build_twin, run_twin
from tests.export.sources.keras.comparison import assert_equal, assert_equal_rows, keras, randomized, sequential


def test_several_inputs_and_outputs_with_shared_and_nested_layers() -> None:
    first, second = keras.Input((4,)), keras.Input((4,))
    shared = layers.Dense(3, activation="relu")
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(2), layers.LayerNormalization()])
    x, y = shared(first), shared(second)
    model = randomized(keras.Model([first, second], [inner(x), layers.Concatenate()([inner(y), x])]))
    assert_equal(model)
    assert len(build_twin(model).layers) == 3


def nested(*, masks: bool) -> Any:
    inner = keras.Sequential([keras.Input((None, 3)), layers.Dropout(0.5), layers.LSTM(4, return_sequences=True)])
    return sequential((None,), layers.Embedding(7, 3, mask_zero=masks), inner, layers.GRU(3), dtype="int32")


def test_nested_model_passes_lengths_on() -> None:
    assert_equal(nested(masks=False), sizes=(5,))
    assert_equal_rows(nested(masks=False))


def test_one_layer_on_series_with_and_without_lengths() -> None:
    series, other = keras.Input((None, 4)), keras.Input((4,))
    shared = layers.Dense(3)
    pooled = layers.GlobalAveragePooling1D()(shared(series))
    model = randomized(keras.Model([series, other], layers.Add()([pooled, shared(other)])))
    assert_equal(model)
    assert_equal_rows(model)


def test_twin_computes_in_float64() -> None:
    twin = build_twin(sequential((4,), layers.Rescaling(0.5), layers.Dense(3), layers.BatchNormalization())).double()
    [result] = run_twin(twin, [torch.zeros(2, 4, dtype=torch.float64)], None)
    assert result.dtype == torch.float64


def labelled(mask: Any, *parts: Any) -> Any:
    series = keras.Input((None, 4))
    x = mask(series)
    for part in parts:
        x = part(x)
    return randomized(keras.Model(series, layers.LSTM(3)(x)))


@pytest.mark.parametrize(
    "build",
    [
        lambda: labelled(layers.Masking(), layers.Dense(3), layers.Bidirectional(layers.GRU(4, return_sequences=True))),
        lambda: labelled(layers.Masking(0.5), layers.LayerNormalization(), layers.LSTM(4, return_sequences=True)),
        lambda: sequential(
            (None,),
            layers.Embedding(7, 3, mask_zero=True),
            layers.Dense(3),
            layers.GlobalAveragePooling1D(),
            dtype="int32",
        ),
    ],
    ids=["both directions", "value", "ids"],
)
def test_masks_of_a_loaded_file_are_recognized(build: Any, tmp_path: Any) -> None:
    model = build()
    model.save(tmp_path / "model.keras")
    assert_equal_rows(load_model(tmp_path / "model.keras"))


def masked_by_hand() -> Any:
    series, mask = keras.Input((None, 4)), keras.Input((None,), dtype="bool")
    return keras.Model([series, mask], layers.LSTM(3)(series, mask=mask))


def trained_when_called() -> Any:
    x = keras.Input((4,))
    return keras.Model(x, layers.Dropout(0.5)(x, training=True))


def computed_with_an_operation() -> Any:
    x = keras.Input((4,))
    return keras.Model(x, layers.Dense(3)(x) * 2.0)


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (masked_by_hand, "is called with a mask of your own; use Masking"),
        (trained_when_called, "is called with training=True"),
        (computed_with_an_operation, r"\(Multiply\) .*"),
        (lambda: nested(masks=True), "is a model inside of the model and is given a mask; put its layers"),
        (lambda: sequential((4, 4, 3), layers.Cropping2D(1)), r"\(Cropping2D\) has no twin; layers with one are"),
        (lambda: sequential((4,), layers.Dense(3, dtype="mixed_float16")), "computes in mixed_float16"),
    ],
    ids=["mask", "training", "operation", "nested mask", "layer", "precision"],
)
def test_what_has_no_twin_is_refused(build: Any, reason: str) -> None:
    with pytest.raises(ExportError, match=reason):
        build_twin(build())
