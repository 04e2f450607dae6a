"""Recurrent layers over rows of their own lengths, with Keras' masks, directions and states.

Keras skips a masked step wherever it stands: the state stays, and the output is that of the step before, or zero. The
twin moves the steps that count to the front of each row, runs PyTorch's layer over them, and puts the results back.

Shapes: B batch, T steps, I input size, N hidden size.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from export.sources.keras.layers.activations import activation_name
from export.sources.keras.layers.reset_before import ResetBeforeGru
from export.sources.keras.layers.values import Value, ValueSpec, raise_unsupported

State = tuple[Tensor, ...]  # (h_BN,) or, of an LSTM, (h_BN, c_BN)
# The positions of PyTorch's gates in Keras' kernels: i f g o of an LSTM, r z n of a GRU.
GATES = {"LSTM": (0, 1, 2, 3), "GRU": (1, 0, 2), "SimpleRNN": (0,)}


class Packed(nn.Module):
    """A batch-first layer of PyTorch that stops each row at its own length, if lengths are given."""

    def __init__(self, rnn: nn.LSTM | nn.GRU | nn.RNN) -> None:
        super().__init__()
        self.rnn = rnn

    def forward(self, x_BTI: Tensor, lengths_B: Tensor | None, state: State | None) -> tuple[Tensor, State]:
        """Return y_BTN, arbitrary after the end of each row, and the state after each row's last step."""
        is_lstm = isinstance(self.rnn, nn.LSTM)
        initial: Any = None if state is None else tuple(part[None].contiguous() for part in state)
        initial = initial if initial is None or is_lstm else initial[0]
        if lengths_B is None:
            y_BTN, final = self.rnn(x_BTI, initial)
        else:
            packed = pack_padded_sequence(x_BTI, lengths_B.cpu(), batch_first=True, enforce_sorted=False)
            y, final = self.rnn(packed, initial)
            y_BTN, _ = pad_packed_sequence(y, batch_first=True, total_length=x_BTI.shape[1])
        parts = final if is_lstm else (final,)
        return y_BTN, tuple(part[0] for part in parts)


class Recurrent(nn.Module):
    """One direction of a recurrent layer of Keras; the result is the output and, if wanted, the state."""

    def __init__(
        self,
        cell: nn.Module,
        *,
        returns_sequences: bool,
        returns_state: bool,
        goes_backwards: bool,
        zeroes_masked: bool,
    ) -> None:
        super().__init__()
        self.cell = cell
        self.returns_sequences, self.returns_state = returns_sequences, returns_state
        self.goes_backwards, self.zeroes_masked = goes_backwards, zeroes_masked

    def forward(self, value: Value, *initial: Value) -> tuple[Value, ...]:
        state = tuple(part.x for part in initial) or None
        x, mask = value.x, value.mask
        if self.goes_backwards:
            x = reverse(x, value.lengths)
            mask = None if mask is None else reverse(mask[..., None], value.lengths)[..., 0]
        if mask is None:
            y, final = self.cell(x, value.lengths, state)
            last = final[0]
        else:
            y, last, final = self._run_masked(x, value.lengths, mask, state)
        sequence = Value(x=y, lengths=value.lengths, mask=value.mask)
        output = sequence if self.returns_sequences else Value(x=last)
        return (output, *(Value(x=part) for part in final)) if self.returns_state else (output,)

    def _run_masked(
        self, x_BTI: Tensor, lengths_B: Tensor | None, mask_BT: Tensor, state: State | None
    ) -> tuple[Tensor, Tensor, State]:
        """The outputs, the last output and the last state, over the steps of the mask alone."""
        valid_BT = Value(x=x_BTI, lengths=lengths_B, mask=mask_BT).valid_steps()
        assert valid_BT is not None
        num_steps = x_BTI.shape[1]
        steps_T = torch.arange(num_steps, device=x_BTI.device)
        order_BT = torch.where(valid_BT, steps_T, steps_T + num_steps).argsort(1)
        counts_B = valid_BT.sum(1)
        y, final = self.cell(_move_steps(x_BTI, order_BT), counts_B.clamp(min=1), state)
        # A row whose steps are all masked keeps its initial state.
        has_steps_B1 = (counts_B > 0)[:, None]
        initial = state if state is not None else tuple(torch.zeros_like(part) for part in final)
        last = torch.where(has_steps_B1, final[0], 0.0)
        final = tuple(torch.where(has_steps_B1, new, old) for new, old in zip(final, initial, strict=True))
        position_BT = valid_BT.cumsum(1) - 1
        y = _move_steps(y, position_BT.clamp(min=0))
        is_zero_BT = ~valid_BT if self.zeroes_masked else position_BT < 0
        y = y.masked_fill(is_zero_BT[..., None], 0.0)
        if self.zeroes_masked:
            ends_B = torch.full_like(counts_B, num_steps) if lengths_B is None else lengths_B
            is_last_valid_B1 = valid_BT.gather(1, ends_B[:, None] - 1)
            last = torch.where(is_last_valid_B1, last, 0.0)
        return y, last, final


class Bidirectional(nn.Module):
    """Two directions whose outputs are merged; the results are the output or outputs, and then the states."""

    def __init__(self, forwards: Recurrent, backwards: Recurrent, merge: Callable[[Tensor, Tensor], Tensor] | None):
        super().__init__()
        self.forwards, self.backwards, self.merge = forwards, backwards, merge

    def forward(self, value: Value, *initial: Value) -> tuple[Value, ...]:
        half = len(initial) // 2
        first, *first_state = self.forwards(value, *initial[:half])
        second, *second_state = self.backwards(value, *initial[half:])
        x = second.x
        if self.backwards.returns_sequences:
            x = reverse(x, value.lengths)
        second = Value(x=x, lengths=second.lengths, mask=second.mask)
        if self.merge is None:
            return (first, second, *first_state, *second_state)
        output = Value(x=self.merge(first.x, second.x), lengths=first.lengths, mask=first.mask)
        return (output, *first_state, *second_state)


MERGE_MODES: dict[str | None, Callable[[Tensor, Tensor], Tensor] | None] = {
    "concat": lambda first, second: torch.cat((first, second), -1),
    "sum": torch.add,
    "ave": lambda first, second: (first + second) / 2,
    "mul": torch.mul,
    None: None,
}


def reverse(x_BTN: Tensor, lengths_B: Tensor | None) -> Tensor:
    """The steps of each row in reverse order; those after the end of a row become arbitrary."""
    if lengths_B is None:
        return x_BTN.flip(1)
    steps_T = torch.arange(x_BTN.shape[1], device=x_BTN.device)
    return _move_steps(x_BTN, (lengths_B[:, None] - 1 - steps_T).clamp(min=0))


def _move_steps(x_BTN: Tensor, source_BT: Tensor) -> Tensor:
    """The tensor whose step t is step `source_BT[:, t]` of x."""
    return x_BTN.gather(1, source_BT[..., None].expand(-1, -1, x_BTN.shape[2]))


def convert_recurrent(layer: Any, _: ValueSpec) -> nn.Module:
    """keras.layers.SimpleRNN, LSTM and GRU. Raises ExportError for other than the usual activations."""
    kind = type(layer).__name__
    if layer.stateful:
        raise_unsupported(
            layer, "keeps its state between calls (stateful=True)", "return the state and pass it as initial_state"
        )
    names = [activation_name(layer.activation)]
    if kind != "SimpleRNN":
        names.append(activation_name(layer.recurrent_activation))
    expected = [["tanh"], ["relu"]] if kind == "SimpleRNN" else [["tanh", "sigmoid"]]
    if names not in expected:
        given = " and ".join(str(name) for name in names)
        raise_unsupported(
            layer, f"has the activations {given}", f"expected {' or '.join(' and '.join(one) for one in expected)}"
        )
    return Recurrent(
        _cell(layer, kind, names[0]),
        returns_sequences=bool(layer.return_sequences),
        returns_state=bool(layer.return_state),
        goes_backwards=bool(layer.go_backwards),
        zeroes_masked=bool(layer.zero_output_for_mask),
    )


def convert_bidirectional(layer: Any, spec: ValueSpec) -> nn.Module:
    """keras.layers.Bidirectional of a recurrent layer."""
    directions = []
    for part in (layer.forward_layer, layer.backward_layer):
        if type(part).__name__ not in GATES:
            raise_unsupported(layer, f"wraps {type(part).__name__}", f"expected one of {', '.join(GATES)}")
        directions.append(convert_recurrent(part, spec))
    forwards, backwards = directions
    assert isinstance(forwards, Recurrent)
    assert isinstance(backwards, Recurrent)
    return Bidirectional(forwards, backwards, MERGE_MODES[layer.merge_mode])


def _cell(layer: Any, kind: str, nonlinearity: str | None) -> nn.Module:
    cell = layer.cell
    kernel, recurrent = (torch.from_numpy(part.numpy()) for part in (cell.kernel, cell.recurrent_kernel))
    # One row of biases, or one for each kernel.
    bias = torch.from_numpy(cell.bias.numpy()).reshape(-1, kernel.shape[1]) if cell.use_bias else None
    if kind == "GRU" and not cell.reset_after:
        return ResetBeforeGru(kernel, recurrent, None if bias is None else bias[0])
    size = {"batch_first": True, "bias": bias is not None}
    rnn: nn.LSTM | nn.GRU | nn.RNN
    if kind == "LSTM":
        rnn = nn.LSTM(kernel.shape[0], cell.units, **size)
    elif kind == "GRU":
        rnn = nn.GRU(kernel.shape[0], cell.units, **size)
    else:
        rnn = nn.RNN(kernel.shape[0], cell.units, nonlinearity=nonlinearity or "tanh", **size)
    weights = {"weight_ih_l0": kernel.T, "weight_hh_l0": recurrent.T}
    if bias is not None:
        weights["bias_ih_l0"] = bias[0]
        weights["bias_hh_l0"] = bias[1] if len(bias) > 1 else torch.zeros_like(bias[0])
    for name, value in weights.items():
        gates = value.chunk(len(GATES[kind]))
        ordered = torch.cat([gates[gate] for gate in GATES[kind]]).clone()
        setattr(rnn, name, nn.Parameter(ordered, requires_grad=False))
    return Packed(rnn)
