"""Recurrent layers as the ONNX operators `RNN`, `LSTM` and `GRU`, with the lengths of packed rows as an input.

torch.export silently unrolls a recurrent layer to the example's length, or fixes that length. During an export,
`emit_recurrent_operators` therefore replaces the forward function of every nn.RNN, nn.LSTM and nn.GRU, whatever module
calls it, with a function that emits the operator. The operator gets the layer's weights, with their gates reordered to
ONNX's order. A layer without an operator is refused with the way out.

Shapes: B batch, T steps, I input size, N hidden size, L layers, D directions.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding
from torch.onnx.ops import symbolic_multi_out

from export.errors import ExportError
from export.graph.packing import PaddedRows, keep_padded

OPSET = 20
State = tuple[Tensor, ...]  # (h_LBN,) of an RNN or a GRU, (h_LBN, c_LBN) of an LSTM
LAYERS = (nn.RNN, nn.LSTM, nn.GRU)
CELLS = (nn.RNNCell, nn.LSTMCell, nn.GRUCell)
# ONNX orders the gates of an LSTM as i o f c, PyTorch as i f g o; those of a GRU as z r h, PyTorch as r z n. The
# numbers are PyTorch's indices in ONNX's order.
GATE_ORDER = {"RNN": (0,), "LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2)}
# Computes all layers: (layer, x_TBI, lengths_B or None, state or None) -> (y_TBN, state).
Compute = Callable[[nn.RNNBase, Tensor, Tensor | None, State | None], tuple[Tensor, State]]


def operator_of(layer: nn.RNNBase) -> str:
    """The ONNX operator of a recurrent layer."""
    return next(kind.__name__ for kind in LAYERS if isinstance(layer, kind))


def emit_recurrent_operators(module: nn.Module) -> AbstractContextManager[None]:
    """Within this context, recurrent layers emit operators into the traced graph and compute nothing.

    `module` is the module to export; messages have its names of layers.
    """
    return replace_recurrent_layers(module, _emit)


@contextmanager
def replace_recurrent_layers(module: nn.Module, compute: Compute) -> Iterator[None]:
    """Within this context, recurrent layers call `compute`, and sequences are packed as padded rows.

    A layer raises ExportError if it has no operator, and a recurrent cell if it is called more than once.
    """
    names = {id(part): name for name, part in module.named_modules()}
    with ExitStack() as stack:
        stack.enter_context(keep_padded())
        for kind in LAYERS:
            stack.enter_context(_replaced(kind, _layer_forward(names, compute)))
        for cell in CELLS:
            stack.enter_context(_replaced(cell, _cell_forward(cell, names)))
        stack.enter_context(_replaced(nn.EmbeddingBag, _bag_forward(names)))
        yield


@contextmanager
def _replaced(kind: Any, forward: Callable[..., Any]) -> Iterator[None]:
    original = kind.forward
    kind.forward = forward
    try:
        yield
    finally:
        kind.forward = original


def _layer_forward(names: dict[int, str], compute: Compute) -> Callable[..., Any]:
    """The forward function of a recurrent layer: packed, batched or a single sequence, with or without a state."""

    def forward(layer: nn.RNNBase, input: Any, hx: Any = None) -> Any:  # noqa: A002 - PyTorch's name
        _check_supported(layer, names)
        lengths_B, is_single = None, False
        if isinstance(input, PaddedRows):
            x_TBI, lengths_B = input.padded, input.lengths
        else:
            is_single = input.dim() == 2
            x_TBI = input.unsqueeze(1) if is_single else input.transpose(0, 1) if layer.batch_first else input
        state = None if hx is None else tuple(hx) if isinstance(layer, nn.LSTM) else (hx,)
        if is_single and state is not None:
            state = tuple(part.unsqueeze(1) for part in state)
        y_TBN, final = compute(layer, x_TBI, lengths_B, state)
        y: Any = y_TBN
        if lengths_B is not None:
            y = PaddedRows(y_TBN, lengths_B)
        elif is_single:
            y, final = y_TBN.squeeze(1), tuple(part.squeeze(1) for part in final)
        elif layer.batch_first:
            y = y_TBN.transpose(0, 1)
        return y, (final if isinstance(layer, nn.LSTM) else final[0])

    return forward


def _check_supported(layer: nn.RNNBase, names: dict[int, str]) -> None:
    if layer.proj_size:
        raise ExportError(
            "graph",
            f"layer {names.get(id(layer), '')!r} is an nn.LSTM with proj_size={layer.proj_size}, for which ONNX has no "
            "operator; train it with proj_size=0 and apply an nn.Linear to its output",
        )


def _cell_forward(kind: Any, names: dict[int, str]) -> Callable[..., Any]:
    """The forward function of a recurrent cell, which refuses to be unrolled."""
    original, called = kind.forward, set[int]()

    def forward(cell: nn.RNNCellBase, *args: Any, **kwargs: Any) -> Any:
        if id(cell) in called:
            raise ExportError(
                "graph",
                f"{names.get(id(cell), '')!r} is an nn.{kind.__name__} that is called once per step, and the graph "
                "would hold the example's number of steps; load its weights into an "
                f"nn.{kind.__name__.removesuffix('Cell')} (weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0) and "
                "call that once on all steps",
            )
        called.add(id(cell))
        return original(cell, *args, **kwargs)

    return forward


def _bag_forward(names: dict[int, str]) -> Callable[..., Any]:
    """The forward function of an embedding bag of fixed size: PyTorch would translate it to a loop."""

    def forward(
        bag: nn.EmbeddingBag,
        input: Tensor,  # noqa: A002 - PyTorch's name
        offsets: Tensor | None = None,
        per_sample_weights: Tensor | None = None,
    ) -> Tensor:
        if offsets is not None or input.dim() != 2 or bag.padding_idx is not None:
            raise ExportError(
                "graph",
                f"{names.get(id(bag), '')!r} is an nn.EmbeddingBag with offsets or padding_idx, which only a loop "
                "could express; call it with ids of two axes, or use an nn.Embedding and sum with a mask",
            )
        x_BTN = embedding(input, bag.weight)
        if bag.mode == "max":
            return x_BTN.amax(1)
        if per_sample_weights is not None:
            x_BTN = x_BTN * per_sample_weights[:, :, None]
        return x_BTN.sum(1) if bag.mode == "sum" else x_BTN.mean(1)

    return forward


def _emit(layer: nn.RNNBase, x_TBI: Tensor, lengths_B: Tensor | None, state: State | None) -> tuple[Tensor, State]:
    directions = ("", "_reverse") if layer.bidirectional else ("",)
    lengths = None if lengths_B is None else lengths_B.to(torch.int32)
    y_TBN, finals = x_TBI, list[State]()
    for number in range(layer.num_layers):
        first = number * len(directions)
        initial = () if state is None else tuple(part[first : first + len(directions)] for part in state)
        suffixes = [f"_l{number}{direction}" for direction in directions]
        y_TBN, final = _emit_one(layer, suffixes, y_TBN, lengths, initial)
        finals.append(final)
    return y_TBN, tuple(torch.cat(parts) for parts in zip(*finals, strict=True))


def _emit_one(
    layer: nn.RNNBase, suffixes: list[str], x_TBI: Tensor, lengths_B: Tensor | None, initial: State
) -> tuple[Tensor, State]:
    """One operator: all directions of one layer."""
    operator, hidden = operator_of(layer), layer.hidden_size
    num_steps, batch, _ = x_TBI.shape
    num_directions, num_states = len(suffixes), 2 if operator == "LSTM" else 1

    def weight(name: str, suffix: str) -> Tensor:
        gates = getattr(layer, f"{name}{suffix}")
        return torch.cat([gates[gate * hidden : (gate + 1) * hidden] for gate in GATE_ORDER[operator]])

    def stacked(*names: str) -> Tensor:
        parts = [torch.cat([weight(name, suffix) for name in names]) for suffix in suffixes]
        return torch.stack(parts) if len(parts) > 1 else parts[0][None]

    attributes: dict[str, Any] = {"hidden_size": hidden}
    if num_directions > 1:
        attributes["direction"] = "bidirectional"
    if operator == "GRU":
        # PyTorch applies the reset gate after the matrix product.
        attributes["linear_before_reset"] = 1
    if operator == "RNN" and getattr(layer, "nonlinearity", "tanh") == "relu":
        attributes["activations"] = ["Relu"] * num_directions
    bias = stacked("bias_ih", "bias_hh") if layer.bias else None
    y_TDBN, *final = symbolic_multi_out(
        operator,
        [x_TBI, stacked("weight_ih"), stacked("weight_hh"), bias, lengths_B, *initial],
        attrs=attributes,
        dtypes=[x_TBI.dtype] * (1 + num_states),
        shapes=[(num_steps, num_directions, batch, hidden)] + [(num_directions, batch, hidden)] * num_states,
        version=OPSET,
    )
    y_TBN = y_TDBN.squeeze(1) if num_directions == 1 else y_TDBN.transpose(1, 2).flatten(2)
    return y_TBN, tuple(final)
