"""Recurrent layers as the ONNX operators `RNN` and `LSTM`, with the row lengths as an input.

torch.export silently unrolls a recurrent layer to the example's length, or fixes that length. During an export,
`emit_recurrent_operators` therefore replaces `Ragged.forward`, the only caller of any recurrent layer, with a function
that emits the operator. The operator gets the trained weights, with their gates reordered to ONNX's order.

Shapes: B batch, T steps, I input size, N hidden size, L layers.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn
from torch.onnx.ops import symbolic_multi_out

from training.layers import Ragged, State

OPSET = 20
# ONNX orders the gates of an LSTM as i o f c, PyTorch as i f g o. The numbers are PyTorch's indices in ONNX's order.
GATE_ORDER = {"RNN": (0,), "LSTM": (0, 3, 1, 2)}


def operator_of(rnn: nn.RNN | nn.LSTM) -> str:
    """The ONNX operator of a recurrent module that `Ragged` accepts."""
    return "LSTM" if isinstance(rnn, nn.LSTM) else "RNN"


def emit_recurrent_operators() -> AbstractContextManager[None]:
    """Within this context, `Ragged.forward` emits operators into the traced graph and computes nothing."""
    return replace_ragged(_emit)


@contextmanager
def replace_ragged(replacement: Callable[..., tuple[Tensor, State]]) -> Iterator[None]:
    """Within this context, `replacement` is `Ragged.forward`."""
    forward = Ragged.forward
    Ragged.forward = replacement  # type: ignore[method-assign]
    try:
        yield
    finally:
        Ragged.forward = forward  # type: ignore[method-assign]


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
    operator, hidden = operator_of(rnn), rnn.hidden_size
    num_steps, batch, _ = x_TBI.shape
    num_states = 2 if operator == "LSTM" else 1

    def weight(name: str) -> Tensor:
        gates = getattr(rnn, f"{name}_l{layer}")
        return torch.cat([gates[gate * hidden : (gate + 1) * hidden] for gate in GATE_ORDER[operator]])

    bias = torch.cat([weight("bias_ih"), weight("bias_hh")])[None] if rnn.bias else None
    y_T1BN, *final = symbolic_multi_out(
        operator,
        [x_TBI, weight("weight_ih")[None], weight("weight_hh")[None], bias, lengths_B, *(state or ())],
        attrs={"hidden_size": hidden},
        dtypes=[x_TBI.dtype] * (1 + num_states),
        shapes=[(num_steps, 1, batch, hidden)] + [(1, batch, hidden)] * num_states,
        version=OPSET,
    )
    return y_T1BN.squeeze(1), tuple(final)
