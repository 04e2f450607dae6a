"""The state of a model: all its inputs but the series, and all its outputs but the first."""

from typing import Any

from keras import layers

from export.sources.keras.states import find_states
from tests.export.sources.keras.comparison import keras, sequential


def stacked(*, swapped: bool = False, hidden: int = 5) -> Any:
    """Two LSTM layers that take and give their states; `swapped` gives c of the first before h."""
    series, first = keras.Input((None, 4)), [keras.Input((5,)), keras.Input((5,))]
    second = [keras.Input((hidden,)), keras.Input((hidden,))]
    x, h, c = layers.LSTM(5, return_sequences=True, return_state=True)(series, initial_state=first)
    y, *last = layers.LSTM(hidden, return_sequences=True, return_state=True)(x, initial_state=second)
    return keras.Model([series, *first, *second], [layers.Dense(3)(y), *((c, h) if swapped else (h, c)), *last])


def test_layers_are_found_with_the_positions_of_their_parts() -> None:
    first, second = find_states(stacked())
    assert (first.inputs, first.outputs, first.hidden) == ((1, 2), (1, 2), 5)
    assert (second.inputs, second.outputs) == ((3, 4), (3, 4))
    assert find_states(stacked(swapped=True))[0].outputs == (2, 1)


def test_layers_of_different_sizes_carry_no_state() -> None:
    assert find_states(stacked(hidden=6)) == ()


def test_model_without_an_initial_state_carries_none() -> None:
    series = keras.Input((None, 4))
    model = keras.Model(series, layers.LSTM(5, return_sequences=True, return_state=True)(series))
    assert find_states(model) == ()
    assert find_states(sequential((4,), layers.Dense(3))) == ()
