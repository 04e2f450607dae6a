"""Packed sequences stay padded during an export, whatever name a module has for PyTorch's functions."""

import pytest
import torch
from torch.nn.utils import rnn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence
from torch.nn.utils.rnn import pack_padded_sequence as pack_rows

from export.errors import ExportError
from export.graph.packing import PaddedRows, keep_padded

X, LENGTHS = torch.arange(12.0).reshape(2, 3, 2), torch.tensor([1, 3])


def test_rows_come_back_as_they_were_packed() -> None:
    with keep_padded():
        rows = pack_rows(X, LENGTHS, batch_first=True)
        assert isinstance(rows, PackedSequence)
        y, lengths = pad_packed_sequence(rows, batch_first=True)
    assert torch.equal(y, X)
    assert torch.equal(lengths, LENGTHS)


@pytest.mark.parametrize("batch_first", [True, False])
def test_the_value_of_padding_follows_each_row(batch_first: bool) -> None:
    with keep_padded():
        rows = rnn.pack_padded_sequence(X, LENGTHS, batch_first=True, enforce_sorted=False)
        y, _ = rnn.pad_packed_sequence(rows, batch_first=batch_first, padding_value=-1.0)
    packed = pack_rows(X, LENGTHS, batch_first=True, enforce_sorted=False)
    expected, _ = pad_packed_sequence(packed, batch_first=batch_first, padding_value=-1.0)
    assert torch.equal(y, expected)


def test_functions_are_restored() -> None:
    with keep_padded():
        pass
    assert not isinstance(pack_rows(X, LENGTHS, batch_first=True, enforce_sorted=False), PaddedRows)


def test_lengths_in_a_list_are_refused() -> None:
    with keep_padded(), pytest.raises(ExportError, match=r"graph: .* lengths of type list, .* pass the tensor"):
        pack_rows(X, [3, 1], batch_first=True)


def test_other_steps_than_those_packed_are_refused() -> None:
    with keep_padded():
        rows = pack_rows(X, LENGTHS, batch_first=True)
        with pytest.raises(
            ExportError, match=r"total_length=5 for a tensor of 3 steps; pass total_length=x.shape\[1\]"
        ):
            pad_packed_sequence(rows, batch_first=True, total_length=5)


def test_the_content_of_packed_rows_is_no_tensor() -> None:
    rows = PaddedRows(X, LENGTHS)
    for read in (lambda: rows.data, lambda: rows[0], lambda: list(rows), lambda: rows.batch_sizes):
        with pytest.raises(ExportError, match="graph: the module reads the content of a packed sequence"):
            read()
    with keep_padded(), pytest.raises(ExportError, match="graph: pad_packed_sequence got Tensor, expected what"):
        pad_packed_sequence(X)  # type: ignore[arg-type]
