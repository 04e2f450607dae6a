"""Modules from outside: the gate passes the honest graph, and refuses each changed constant and an added node."""

from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad, scaled_dot_product_attention
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from export.errors import ExportError
from export.gates.weights import gate
from export.gates.weights.gate import check_weights
from export.gates.weights.source import read_source
from export.graph.exporter import export_program, strip_metadata
from export.source import Source
from service.contract.tensors import Specs, float32, int64
from service.manifest import AxisRange
from tests.export.graph.modules import module_source


class Unet(nn.Module):
    """Pictures of any size: a skip connection, an upsampling to its size, and a norm that is no single node."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ConvTranspose2d(4, 4, 3, padding=1)
        self.norm, self.last = nn.GroupNorm(2, 4), nn.Conv2d(5, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.silu(self.norm(self.up(self.down(x))))
        y = interpolate(y, size=x.shape[-2:], mode="bilinear")
        y = torch.cat([x, y], 1)
        y += 1.5
        return self.last(y).sigmoid()


class Attention(nn.Module):
    """Two heads over tokens with a table of positions as a buffer, padded rows masked."""

    def __init__(self) -> None:
        super().__init__()
        self.segments, self.tokens = nn.Embedding(2, 8), nn.Embedding(20, 8)
        self.register_buffer("positions", torch.randn(32, 8))
        self.project, self.head = nn.Linear(8, 24), nn.Linear(8, 3)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        steps = torch.arange(ids.shape[1])
        x = self.tokens(ids) + self.segments(torch.zeros_like(ids)) + self.positions[: ids.shape[1]]
        query, key, value = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in self.project(x).chunk(3, dim=-1))
        mask = (steps < lengths[:, None])[:, None, None, :]
        y = scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.head(y.transpose(1, 2).flatten(2)[:, 0])


class Shared(nn.Module):
    """One recurrent layer and one linear layer applied twice, and an embedding that is also the head."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(20, 8)
        self.rnn, self.linear = nn.LSTM(8, 4, batch_first=True, bidirectional=True), nn.Linear(8, 8)
        self.head = nn.Linear(8, 20, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        x = self.linear(self.linear(self.tokens(ids)).relu())
        for _ in range(2):
            rows = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            x, _ = pad_packed_sequence(self.rnn(rows)[0], batch_first=True, total_length=ids.shape[1])
        return self.head(x)


class Padded(nn.Module):
    """Zeros at two ends of a picture, as TensorFlow pads, which the exporter makes those of the convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, stride=2), nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(pad(x, (0, 1, 2, 3))).relu()
        return self.second(pad(y, (1, 0))).flatten(1)


class Spectrum(nn.Module):
    """The magnitudes of complex numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.fft.rfft(x).abs().log1p())


TEXT: Specs = (int64("ids", "batch", "steps"), int64("lengths", "batch"))
SIZES = {name: AxisRange(min=8, max=64) for name in ("height", "width")}
MODULES: dict[str, tuple[Callable[[], nn.Module], Specs, Specs]] = {
    "u-net": (
        Unet,
        (float32("x", "batch", 1, "height", "width"),),
        (float32("masks", "batch", 1, "height", "width"),),
    ),
    "attention": (Attention, TEXT, (float32("scores", "batch", 3),)),
    "shared": (Shared, TEXT, (float32("scores", "batch", "steps", 20),)),
    "padded": (Padded, (float32("x", "batch", 1, 9, 8),), (float32("scores", "batch", 84),)),
    "spectrum": (Spectrum, (float32("x", "batch", 8),), (float32("scores", "batch", 3),)),
}


@cache
def exported(name: str) -> tuple[Source, bytes]:
    build, inputs, outputs = MODULES[name]
    torch.manual_seed(0)
    source = module_source(build(), inputs=inputs, outputs=outputs, axes=SIZES)
    return source, strip_metadata(export_program(source))


def candidate(source: Source, model: bytes) -> Any:
    """What the gate reads of a candidate."""
    return SimpleNamespace(source=source, model=model, external_values=dict)


@pytest.mark.parametrize("name", MODULES)
def test_the_gate_tells_the_honest_graph_from_each_other(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source, content = exported(name)
    traced = read_source(source)
    monkeypatch.setattr(gate, "read_source", lambda _: traced)
    assert not check_weights(candidate(source, content)).unused
    rng = np.random.default_rng(0)
    initializers = onnx.load_from_string(content).graph.initializer
    for position, initializer in enumerate(initializers):
        array = numpy_helper.to_array(initializer).copy()
        if array.dtype.kind == "f":
            element = rng.integers(array.size)
            array.reshape(-1)[element] = np.nextafter(array.reshape(-1)[element], np.float32(1e9))
            changed = onnx.load_from_string(content)
            changed.graph.initializer[position].CopyFrom(numpy_helper.from_array(array, initializer.name))
            with pytest.raises(ExportError, match="weights: "):
                check_weights(candidate(source, changed.SerializeToString()))


@pytest.mark.parametrize("name", MODULES)
def test_no_node_can_be_added(name: str) -> None:
    source, content = exported(name)
    changed = onnx.load_from_string(content)
    graph = changed.graph
    last = next(node for node in graph.node if graph.output[0].name in node.output)
    last.output[0] = "exact"
    graph.node.append(helper.make_node("Ceil", ["exact"], [graph.output[0].name]))
    with pytest.raises(ExportError, match=r"weights: node \d+ \(Ceil\) has no counterpart in the model"):
        check_weights(candidate(source, changed.SerializeToString()))


@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [2, 0, 3, 0], [3, 1, 2, 0], [2, 1, 3, 0]])
def test_zeros_around_a_picture_stay_at_their_ends(pads: list[int]) -> None:
    source, content = exported("padded")
    changed = onnx.load_from_string(content)
    first = next(node for node in changed.graph.node if node.op_type == "Conv")
    attribute = next(one for one in first.attribute if one.name == "pads")
    assert list(attribute.ints) == [2, 0, 3, 1]
    attribute.ints[:] = pads
    if not any(pads):
        # As the module has it, whose zeros stand in a node of their own.
        check_weights(candidate(source, changed.SerializeToString()))
        return
    with pytest.raises(ExportError, match=r"attribute 'pads' of node \d+ \(Conv\) is .*, the model has \[2, 0, 3, 1\]"):
        check_weights(candidate(source, changed.SerializeToString()))
