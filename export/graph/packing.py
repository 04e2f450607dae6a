"""Packed sequences during an export: the padded tensor with the lengths of its rows, never flattened.

PyTorch sorts the rows and joins their steps, which no operator of ONNX can express with free lengths. Within
`keep_padded`, `pack_padded_sequence` therefore returns a `PaddedRows`, which recurrent layers and
`pad_packed_sequence` understand. Whoever looks inside it gets an error with the way out instead of other numbers.

Shapes: B batch, T steps, other axes follow.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.nn.utils import rnn
from torch.nn.utils.rnn import PackedSequence

from export.errors import ExportError


class PaddedRows(PackedSequence):
    """Rows of different lengths in one padded tensor: [T, B, ...] and lengths [B]."""

    padded: Tensor
    lengths: Tensor

    def __new__(cls, x_TB: Tensor, lengths_B: Tensor) -> "PaddedRows":
        """A tuple of these two; a packed sequence has four other elements."""
        rows: PaddedRows = tuple.__new__(cls, (x_TB, lengths_B))
        rows.padded, rows.lengths = x_TB, lengths_B
        return rows

    def _raise_unsupported(self, *_: object) -> NoReturn:
        raise ExportError(
            "graph",
            "the module reads the content of a packed sequence, which has no counterpart in a graph; "
            "apply pad_packed_sequence first and compute with the padded tensor",
        )

    data = batch_sizes = sorted_indices = unsorted_indices = property(_raise_unsupported)
    __iter__ = __getitem__ = to = _raise_unsupported  # type: ignore[assignment]


@contextmanager
def keep_padded() -> Iterator[None]:
    """Within this context, PyTorch's functions of packed sequences keep the padded tensor."""
    replaced: dict[Any, Any] = {rnn.pack_padded_sequence: _pack_code, rnn.pad_packed_sequence: _pad_code}
    codes = {function: function.__code__ for function in replaced}
    try:
        # A module may have imported the functions under any name: their code is the only thing that all names share.
        for function, replacement in replaced.items():
            _set_code(function, replacement.__code__)
        yield
    finally:
        for function, code in codes.items():
            _set_code(function, code)


def _set_code(function: Any, code: CodeType) -> None:
    function.__code__ = code


# These two run with the globals of PyTorch's module, so they import what they call. Their parameters are PyTorch's.
def _pack_code(input: Tensor, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True) -> PackedSequence:  # noqa: A002, ARG001
    from export.graph.packing import pack  # noqa: PLC0415

    return pack(input, lengths, batch_first=batch_first)


def _pad_code(
    sequence: Any, batch_first: bool = False, padding_value: float = 0.0, total_length: int | None = None
) -> tuple[Tensor, Tensor]:
    from export.graph.packing import pad  # noqa: PLC0415

    return pad(sequence, batch_first=batch_first, padding_value=padding_value, total_length=total_length)


def pack(x: Tensor, lengths: Any, *, batch_first: bool) -> PaddedRows:
    """The rows in the order given, whether or not the lengths are sorted."""
    if not isinstance(lengths, Tensor):
        raise ExportError(
            "graph",
            f"pack_padded_sequence got lengths of type {type(lengths).__name__}, which the graph would hold as "
            "constants; pass the tensor of lengths itself",
        )
    return PaddedRows(x.transpose(0, 1) if batch_first else x, lengths)


def pad(rows: Any, *, batch_first: bool, padding_value: float, total_length: Any) -> tuple[Tensor, Tensor]:
    """The padded tensor, with as many steps as were packed, and the lengths. Recurrent layers end rows with zeros."""
    if not isinstance(rows, PaddedRows):
        raise ExportError(
            "graph", f"pad_packed_sequence got {type(rows).__name__}, expected what pack_padded_sequence returned"
        )
    x_TB, lengths_B = rows.padded, rows.lengths
    num_steps = x_TB.shape[0]
    if total_length is not None and total_length != num_steps:
        raise ExportError(
            "graph",
            f"pad_packed_sequence has total_length={total_length} for a tensor of {num_steps} steps; "
            "pass total_length=x.shape[1], the steps of the tensor that was packed",
        )
    if padding_value:
        is_padding_TB = torch.arange(num_steps, device=x_TB.device)[:, None] >= lengths_B
        x_TB = x_TB.masked_fill(is_padding_TB.reshape(*is_padding_TB.shape, *[1] * (x_TB.dim() - 2)), padding_value)
    return (x_TB.transpose(0, 1) if batch_first else x_TB), lengths_B
