"""A recorded recurrent layer is one operator with the shapes of the layer's outputs and all its parameters."""

import pytest
import torch
from torch import nn

from export.gates.weights.recorded import record


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_shapes_are_those_of_the_layer(kind: type[nn.RNNBase], bidirectional: bool) -> None:
    layer = kind(3, 4, num_layers=2, bidirectional=bidirectional)
    x_TBI = torch.randn(5, 2, 3)
    expected, final = layer(x_TBI)
    y_TBN, states = record(layer, x_TBI, torch.tensor([5, 2]), None)
    assert y_TBN.shape == expected.shape
    finals = final if isinstance(final, tuple) else (final,)
    assert [state.shape for state in states] == [state.shape for state in finals]
