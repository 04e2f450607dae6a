"""Recurrent layers in a trace: one operator for each, which has the parameters of the layer and computes zeros.

PyTorch's own operators fix the number of steps when they are traced.

Shapes: B batch, T steps, I input size, N hidden size, L layers, D directions.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from export.graph.recurrent import State

NAMES = {"LSTM": "lstm", "GRU": "gru", "RNN_TANH": "rnn_tanh", "RNN_RELU": "rnn_relu"}
_LIBRARY = torch.library.Library("ekiben", "DEF")
_SCHEMA = (
    "(Tensor input, Tensor? lengths, Tensor[] hx, Tensor[] params, int num_layers, bool bidirectional, int hidden) "
    "-> Tensor[]"
)


def record(layer: nn.RNNBase, x_TBI: Tensor, lengths_B: Tensor | None, state: State | None) -> tuple[Tensor, State]:
    """Call the operator of the layer."""
    parameters = [weight for weights in layer.all_weights for weight in weights]
    operator = getattr(torch.ops.ekiben, NAMES[layer.mode])
    y_TBN, *final = operator(
        x_TBI,
        lengths_B,
        [] if state is None else list(state),
        parameters,
        layer.num_layers,
        layer.bidirectional,
        layer.hidden_size,
    )
    return y_TBN, tuple(final)


def _zeros(num_states: int) -> Callable[..., list[Tensor]]:
    """The operator in eager mode and in a trace: the shapes of its outputs, of which the last are the states."""

    def compute(x_TBI: Tensor, *arguments: Any) -> list[Tensor]:
        num_layers, is_bidirectional, hidden = arguments[-3:]
        num_directions = 2 if is_bidirectional else 1
        num_steps, batch, _ = x_TBI.shape
        y_TBN = x_TBI.new_zeros(num_steps, batch, num_directions * hidden)
        return [y_TBN, *(x_TBI.new_zeros(num_layers * num_directions, batch, hidden) for _ in range(num_states))]

    return compute


for _name in NAMES.values():
    _LIBRARY.define(f"{_name}{_SCHEMA}")
    _LIBRARY.impl(_name, _zeros(2 if _name == "lstm" else 1), "CompositeExplicitAutograd")
