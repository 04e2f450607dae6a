"""The twin and Keras behind one interface with named arguments."""

from typing import Any

import numpy as np
import torch
from keras import layers

from export.sources.keras.module import ReferenceModule, TwinModule, read_interface
from export.sources.keras.states import find_states
from export.sources.keras.twin import build_twin
from tests.export.sources.keras.comparison import keras, randomized, sequential
from tests.export.sources.keras.test_states import stacked


def modules(model: Any, *, has_series: bool) -> tuple[TwinModule, ReferenceModule]:
    interface = read_interface(model, has_series=has_series, states=find_states(model))
    return TwinModule(build_twin(model, series=interface.series), interface), ReferenceModule(model, interface)


def test_outputs_are_zero_after_the_end_of_a_row() -> None:
    model = sequential((None, 4), layers.LSTM(5, return_sequences=True), layers.Dense(3))
    series, lengths = torch.randn(2, 6, 4), torch.tensor([6, 2])
    for module in modules(model, has_series=True):
        name, *_ = module.interface.inputs
        assert module.interface.parameters == (name, "lengths")
        [output] = module(**{name: series, "lengths": lengths}).values()
        assert not output[1, 2:].any()
        assert output[1, :2].all()


def test_states_are_layers_of_one_tensor() -> None:
    model = randomized(stacked(swapped=True))
    twin, reference = modules(model, has_series=True)
    name = twin.interface.inputs[0]
    assert twin.interface.parameters == (name, "lengths", "h", "c")
    arguments = {name: torch.randn(3, 6, 4), "lengths": torch.tensor([6, 1, 4])}
    arguments |= {part: torch.randn(2, 3, 5) for part in ("h", "c")}
    for actual, expected in zip(twin(**arguments), reference(**arguments), strict=True):
        assert actual.shape == expected.shape
        np.testing.assert_allclose(actual.numpy(), expected.numpy(), atol=1e-6)


def test_inputs_and_outputs_of_one_name_are_told_apart() -> None:
    series = keras.Input((None, 4), name="series")
    outputs = layers.LSTM(5, return_sequences=True, return_state=True, name="memory")(series)
    interface = read_interface(keras.Model(series, outputs), has_series=False, states=())
    assert interface.inputs == interface.parameters == ("series",)
    assert interface.outputs == ("memory", "memory_1", "memory_2")
