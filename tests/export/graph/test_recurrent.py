"""Recurrent layers become ONNX operators, and `Ragged.forward` is restored afterwards."""

import pytest
import torch
from torch import nn

from export.graph.recurrent import emit_recurrent_operators, operator_of
from training.layers import Ragged


def test_each_recurrent_layer_has_its_operator() -> None:
    assert operator_of(nn.RNN(2, 3)) == "RNN"
    assert operator_of(nn.LSTM(2, 3)) == "LSTM"


def test_forward_is_restored_after_an_error() -> None:
    original = Ragged.forward

    def fail() -> None:
        with emit_recurrent_operators():
            assert Ragged.forward is not original
            raise RuntimeError("failed")

    with pytest.raises(RuntimeError, match="failed"):
        fail()
    assert Ragged.forward is original


def test_an_emitted_layer_computes_zeros() -> None:
    """A reference computed during an export would be all zeros."""
    ragged = Ragged(nn.LSTM(2, 3, num_layers=2, batch_first=True))
    with emit_recurrent_operators(), torch.no_grad():
        y, (h, c) = ragged(torch.ones(2, 5, 2), torch.tensor([5, 3]))
    assert (y.shape, h.shape, c.shape) == ((2, 5, 3), (2, 2, 3), (2, 2, 3))
    assert not y.any()
