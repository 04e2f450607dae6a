"""Which layers become which operators, and that nothing stays replaced."""

import pytest
import torch
from torch import nn

from export.recurrent import emitted_as_onnx, operator
from training.layers import Ragged


def test_operators_of_the_recurrent_layers() -> None:
    assert operator(nn.RNN(2, 3)) == "RNN"
    assert operator(nn.LSTM(2, 3)) == "LSTM"


def test_the_computing_forward_is_back_whatever_happens() -> None:
    computed = Ragged.forward

    def trouble() -> None:
        with emitted_as_onnx():
            assert Ragged.forward is not computed
            raise RuntimeError("trouble")

    with pytest.raises(RuntimeError, match="trouble"):
        trouble()
    assert Ragged.forward is computed


def test_the_emitted_layer_computes_nothing() -> None:
    """Run eagerly it gives zeros: a reference must never be taken while it is in place."""
    ragged = Ragged(nn.LSTM(2, 3, num_layers=2, batch_first=True))
    with emitted_as_onnx(), torch.no_grad():
        y, (h, c) = ragged(torch.ones(2, 5, 2), torch.tensor([5, 3]))
    assert (y.shape, h.shape, c.shape) == ((2, 5, 3), (2, 2, 3), (2, 2, 3))
    assert not y.any()
