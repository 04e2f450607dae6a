"""The reference is Keras itself, each row alone at its own length."""

import numpy as np
from keras import layers

from export.sources.keras.reference import run_keras
from tests.export.sources.keras.comparison import draw, sequential


def test_each_row_is_computed_alone_at_its_own_length() -> None:
    parts = [layers.Bidirectional(layers.LSTM(4, return_sequences=True)), layers.Dense(3)]
    model = sequential((None, 5), *parts)
    [series] = draw(model, 4, size=6)
    lengths = np.array([6, 2, 6, 1])
    [outputs] = run_keras(model, [series], lengths)
    for row, length in enumerate(lengths):
        single = model(series[row : row + 1, :length], training=False).detach().numpy()[0]
        np.testing.assert_allclose(outputs[row, :length], single, atol=1e-6)
        assert not outputs[row, length:].any()


def test_outputs_without_steps_have_one_row_each() -> None:
    model = sequential((None, 5), layers.LSTM(4))
    [outputs] = run_keras(model, draw(model, 3), np.array([5, 2, 5]))
    assert outputs.shape == (3, 4)
