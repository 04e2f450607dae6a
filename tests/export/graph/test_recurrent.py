"""Recurrent layers of any module become ONNX operators that equal PyTorch at other batch sizes, steps and lengths."""

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from export.errors import ExportError
from export.graph.exporter import export_program, strip_metadata
from export.graph.recurrent import emit_recurrent_operators, operator_of
from service.contract.tensors import Specs, float32, int64
from tests.export.graph.modules import module_source

INPUTS: Specs = (
    float32("x", "batch", "steps", 3),
    int64("lengths", "batch"),
    float32("h", "batch", "layers", 4),
    float32("c", "batch", "layers", 4),
)


class Recurrent(nn.Module):
    """Applies a recurrent layer in one of the ways in which modules call it."""

    def __init__(self, layer: nn.RNNBase, *, is_packed: bool, has_state: bool, padding_value: float = 0.0) -> None:
        super().__init__()
        self.layer, self.is_packed, self.has_state = layer, is_packed, has_state
        self.padding_value = padding_value

    def forward(self, x: Tensor, lengths: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        state: Any = None
        if self.has_state:
            parts = tuple(part.transpose(0, 1).contiguous() for part in (h, c))
            state = parts if isinstance(self.layer, nn.LSTM) else parts[0]
        x = x if self.layer.batch_first else x.transpose(0, 1)
        steps = 1 if self.layer.batch_first else 0
        if self.is_packed:
            packed = pack_padded_sequence(x, lengths.cpu(), batch_first=self.layer.batch_first, enforce_sorted=False)
            packed, final = self.layer(packed, state)
            y, _ = pad_packed_sequence(
                packed,
                batch_first=self.layer.batch_first,
                padding_value=self.padding_value,
                total_length=x.shape[steps],
            )
        else:
            y, final = self.layer(x, state)
        final = torch.cat(final) if isinstance(self.layer, nn.LSTM) else final
        y = y if self.layer.batch_first else y.transpose(0, 1)
        return y + 0 * (h.sum() + c.sum()), final.transpose(0, 1) + 0 * lengths[:, None, None]


# The ways to call a layer: kind, arguments of the layer, packed, with a state, the value of padding.
WAYS: dict[str, tuple[str, dict[str, Any], bool, bool, float]] = {
    "rnn": ("RNN", {"batch_first": True}, False, False, 0.0),
    "rnn, relu, packed, both directions": ("RNN", {"nonlinearity": "relu", "bidirectional": True}, True, True, 0.0),
    "lstm, steps first, with a state": ("LSTM", {"num_layers": 2}, False, True, 0.0),
    "lstm, packed, both directions": (
        "LSTM", {"num_layers": 2, "bidirectional": True, "batch_first": True, "dropout": 0.5}, True, True, 7.0,
    ),
    "gru, packed": ("GRU", {"batch_first": True}, True, False, 0.0),
    "gru, both directions, no bias": ("GRU", {"num_layers": 2, "bidirectional": True, "bias": False}, False, True, 0.0),
}  # fmt: skip


@pytest.mark.parametrize("name", WAYS)
def test_the_operator_equals_pytorch_at_other_sizes_than_the_examples(name: str) -> None:
    kind, arguments, is_packed, has_state, padding_value = WAYS[name]
    torch.manual_seed(0)
    layer = getattr(nn, kind)(3, 4, **arguments)
    module = Recurrent(layer, is_packed=is_packed, has_state=has_state, padding_value=padding_value).eval()
    states = layer.num_layers * (2 if layer.bidirectional else 1)
    inputs = tuple(
        spec.model_copy(update={"shape": tuple(states if axis == "layers" else axis for axis in spec.shape)})
        for spec in INPUTS
    )
    outputs = (float32("y", "batch", "steps", 4 * (2 if layer.bidirectional else 1)), float32("final", "batch", 1, 4))
    session = onnxruntime.InferenceSession(
        strip_metadata(export_program(module_source(module, inputs=inputs, outputs=outputs)))
    )
    for batch, steps in ((1, 1), (2, 7), (6, 3)):
        feed = {
            "x": torch.randn(batch, steps, 3),
            "lengths": torch.randint(1, steps + 1, (batch,)),
            "h": torch.randn(batch, states, 4),
            "c": torch.randn(batch, states, 4),
        }
        with torch.no_grad():
            expected = module(*feed.values())
        actual = session.run(None, {key: value.numpy() for key, value in feed.items()})
        for one, other in zip(expected, actual, strict=True):
            np.testing.assert_allclose(other, one.numpy(), rtol=1e-4, atol=1e-5)


def test_each_recurrent_layer_has_its_operator() -> None:
    assert [operator_of(kind(2, 3)) for kind in (nn.RNN, nn.LSTM, nn.GRU)] == ["RNN", "LSTM", "GRU"]


def test_forward_is_restored_after_an_error() -> None:
    original, code = nn.LSTM.forward, pack_padded_sequence.__code__

    def fail() -> None:
        with emit_recurrent_operators(nn.Module()):
            assert nn.LSTM.forward is not original
            raise RuntimeError("failed")

    with pytest.raises(RuntimeError, match="failed"):
        fail()
    assert nn.LSTM.forward is original
    assert pack_padded_sequence.__code__ is code


def test_an_emitted_layer_computes_zeros() -> None:
    """A reference computed during an export would be all zeros."""
    layer = nn.LSTM(2, 3, num_layers=2, batch_first=True)
    with emit_recurrent_operators(layer), torch.no_grad():
        y, (h, c) = layer(torch.ones(2, 5, 2))
    assert (y.shape, h.shape, c.shape) == ((2, 5, 3), (2, 2, 3), (2, 2, 3))
    assert not y.any()


def test_a_single_sequence_has_no_axis_of_rows() -> None:
    layer = nn.GRU(2, 3)
    with emit_recurrent_operators(layer), torch.no_grad():
        y, h = layer(torch.ones(5, 2), torch.zeros(1, 3))
    assert (y.shape, h.shape) == ((5, 3), (1, 3))


def test_a_projection_is_refused_with_the_name_of_the_layer() -> None:
    module = nn.Sequential(nn.LSTM(2, 4, proj_size=3))
    with (
        emit_recurrent_operators(module),
        pytest.raises(ExportError, match=r"graph: layer '0' is an nn.LSTM with proj_size=3, .* apply an nn.Linear"),
    ):
        module(torch.ones(1, 5, 2))


def test_a_cell_in_a_loop_is_refused_with_the_layer_to_use() -> None:
    module = nn.Sequential(nn.GRUCell(2, 3))
    with emit_recurrent_operators(module), torch.no_grad():
        module(torch.ones(1, 2))
        with pytest.raises(ExportError, match=r"graph: '0' is an nn.GRUCell that is called once per step, .* nn.GRU "):
            module(torch.ones(1, 2))


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_a_bag_of_embeddings_is_computed_without_a_loop(mode: str) -> None:
    bag, ids = nn.EmbeddingBag(5, 3, mode=mode), torch.tensor([[0, 4], [2, 2]])
    expected = bag(ids)
    with emit_recurrent_operators(bag):
        torch.testing.assert_close(bag(ids), expected)
        with pytest.raises(ExportError, match=r"graph: '' is an nn.EmbeddingBag with offsets or padding_idx"):
            bag(ids.flatten(), torch.tensor([0, 2]))
