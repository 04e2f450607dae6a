"""Recurrent layers equal Keras' own: each row alone, with masks, directions and states."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from keras import layers

from export.errors import ExportError
from export.sources.keras.twin import build_twin
from tests.export.sources.keras.comparison import assert_equal, assert_equal_rows, keras, randomized, sequential

KINDS: dict[str, Callable[..., Any]] = {
    "lstm": layers.LSTM,
    "gru": layers.GRU,
    "gru, reset before": partial(layers.GRU, reset_after=False),
    "rnn, tanh": layers.SimpleRNN,
    "rnn, relu": partial(layers.SimpleRNN, activation="relu"),
}
OPTIONS: dict[str, dict[str, bool]] = {
    "last": {},
    "sequences": {"return_sequences": True},
    "backwards": {"go_backwards": True},
    "sequences backwards": {"go_backwards": True, "return_sequences": True},
    "no bias": {"use_bias": False},
    "state": {"return_state": True, "return_sequences": True},
    "zeroes": {"zero_output_for_mask": True},
    "zeroes, sequences": {"zero_output_for_mask": True, "return_sequences": True},
}


def on_series(layer: Any, *, masked: bool) -> Any:
    series = keras.Input((None, 4))
    return randomized(keras.Model(series, layer(layers.Masking()(series) if masked else series)))


@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_layer_equals_keras(kind: str, options: str, masked: bool) -> None:
    model = on_series(KINDS[kind](5, **OPTIONS[options]), masked=masked)
    assert_equal(model, batches=(3,), sizes=(5,))
    assert_equal_rows(model)


@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
@pytest.mark.parametrize("returns_sequences", [False, True], ids=["last", "sequences"])
@pytest.mark.parametrize("merge_mode", ["concat", "sum", "ave", "mul", None])
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_both_directions_equal_keras(kind: str, merge_mode: str | None, returns_sequences: bool, masked: bool) -> None:
    layer = KINDS[kind](5, return_sequences=returns_sequences)
    model = on_series(layers.Bidirectional(layer, merge_mode=merge_mode), masked=masked)
    assert_equal(model, batches=(3,), sizes=(5,))
    assert_equal_rows(model)


def stateful(layer: Any, num_states: int, *, masked: bool = False) -> Any:
    series, states = keras.Input((None, 4)), [keras.Input((5,)) for _ in range(num_states)]
    outputs = layer(layers.Masking()(series) if masked else series, initial_state=states)
    return randomized(keras.Model([series, *states], outputs))


@pytest.mark.parametrize(("kind", "num_states"), [("lstm", 2), ("gru", 1), ("gru, reset before", 1), ("rnn, tanh", 1)])
def test_states_equal_keras(kind: str, num_states: int) -> None:
    model = stateful(KINDS[kind](5, return_sequences=True, return_state=True), num_states)
    assert_equal(model, sizes=(5,))
    assert_equal_rows(model)


def test_states_of_both_directions_equal_keras() -> None:
    layer = layers.Bidirectional(layers.LSTM(5, return_sequences=True, return_state=True))
    model = stateful(layer, 4)
    assert_equal(model, sizes=(5,))
    assert_equal_rows(model)


def test_rows_that_are_masked_throughout_equal_keras() -> None:
    model = sequential(
        (None,), layers.Embedding(7, 3, mask_zero=True), layers.LSTM(4, return_sequences=True), dtype="int32"
    )
    assert_equal_rows(model, lengths=(1,) * 12)


def test_a_mask_beside_an_initial_state_is_refused() -> None:
    with pytest.raises(ExportError, match="Keras then ignores the mask of its input; remove the mask"):
        build_twin(stateful(layers.LSTM(5), 2, masked=True))


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (
            layers.LSTM(5, recurrent_activation="hard_sigmoid"),
            "has the activations tanh and hard_sigmoid; expected tanh",
        ),
        (layers.SimpleRNN(5, activation="sigmoid"), "has the activations sigmoid; expected tanh or relu"),
        (layers.RNN(layers.LSTMCell(5)), "has no twin"),
    ],
    ids=["lstm", "rnn", "cell"],
)
def test_other_cells_are_refused(layer: Any, reason: str) -> None:
    with pytest.raises(ExportError, match=reason):
        build_twin(sequential((None, 4), layer))


def test_state_kept_between_calls_is_refused() -> None:
    series = keras.Input(batch_shape=(2, 3, 4))
    with pytest.raises(ExportError, match="stateful=True"):
        build_twin(keras.Model(series, layers.LSTM(5, stateful=True)(series)))
