"""Recurrent layers as the ONNX operators `RNN` and `LSTM`, the row lengths being one of their inputs.

torch.export would unroll a recurrent layer to the example's length, or fix that length, without a word. While a model
is exported, `emitted_as_onnx` therefore puts the operator itself in the place of `Ragged.forward`: the one place where
any recurrent layer is called. The trained weights are used as they are; only their gates are put in ONNX's order.

Shapes: B batch, T steps, I input size, N hidden size, L layers.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.onnx.ops import symbolic_multi_out

from training.layers import Ragged, State

OPSET = 20
GATES = {"RNN": (0,), "LSTM": (0, 3, 1, 2)}  # where ONNX's gates (LSTM: i o f c) are among PyTorch's (i f g o)


def operator(rnn: nn.RNN | nn.LSTM) -> str:
    """The ONNX operator of a recurrent module that `Ragged` takes."""
    return "LSTM" if isinstance(rnn, nn.LSTM) else "RNN"


@contextmanager
def emitted_as_onnx() -> Iterator[None]:
    """Within this context `Ragged.forward` writes operators into the traced graph (and computes nothing)."""
    computed = Ragged.forward
    Ragged.forward = _emit  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        Ragged.forward = computed  # type: ignore[method-assign]


def _emit(ragged: Ragged, x_BTI: Tensor, lengths_B: Tensor, state: State | None = None) -> tuple[Tensor, State]:
    y_TBN, lengths = x_BTI.transpose(0, 1), lengths_B.to(torch.int32)
    finals: list[State] = []
    for layer in range(ragged.rnn.num_layers):
        initial = None if state is None else tuple(part[layer : layer + 1] for part in state)
        y_TBN, final = _emit_layer(ragged.rnn, layer, y_TBN, lengths, initial)
        finals.append(final)
    return y_TBN.transpose(0, 1), tuple(torch.cat(parts) for parts in zip(*finals, strict=True))


def _emit_layer(
    rnn: nn.RNN | nn.LSTM, layer: int, x_TBI: Tensor, lengths_B: Tensor, state: State | None
) -> tuple[Tensor, State]:
    kind, hidden = operator(rnn), rnn.hidden_size
    num_steps, batch, _ = x_TBI.shape
    num_states = 2 if kind == "LSTM" else 1

    def weight(name: str) -> Tensor:
        gates = getattr(rnn, f"{name}_l{layer}")
        return torch.cat([gates[gate * hidden : (gate + 1) * hidden] for gate in GATES[kind]])

    bias = torch.cat([weight("bias_ih"), weight("bias_hh")])[None] if rnn.bias else None
    y_T1BN, *final = symbolic_multi_out(
        kind,
        [x_TBI, weight("weight_ih")[None], weight("weight_hh")[None], bias, lengths_B, *(state or ())],
        attrs={"hidden_size": hidden},
        dtypes=[x_TBI.dtype] * (1 + num_states),
        shapes=[(num_steps, 1, batch, hidden)] + [(1, batch, hidden)] * num_states,
        version=OPSET,
    )
    return y_T1BN.squeeze(1), tuple(final)
