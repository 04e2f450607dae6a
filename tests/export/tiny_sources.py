"""Tiny sources of every pair of reader and head, as models from elsewhere bring them; the weights are seeded.

The graph of a source with free axes comes as a file, made by the exporter of PyTorch; all others are traced by export.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from export.candidate import Candidate, build_candidate
from export.graph.capture import silence_exporter
from export.graph.exporter import export_program, strip_metadata
from export.graph.recurrent import OPSET
from export.source import Array, Predict, Source
from service.contract.heads import (
    EmbeddingHead,
    Head,
    ImageHead,
    LabelsHead,
    MultilabelHead,
    TensorsHead,
    TokenLabelsHead,
    ValuesHead,
)
from service.contract.readers import (
    CategoryColumn,
    ImageReader,
    NumberColumn,
    Reader,
    Resize,
    SeriesReader,
    TableReader,
    TensorsReader,
)
from service.contract.tensors import Specs, float32, tensor
from service.manifest import AxisRange, Provenance, RequestLimits
from tests.export.tiny import CHANNELS, randomize
from training.layers import Ragged
from training.recipe import Split

NUM_EXAMPLES = 32
PROVENANCE = Provenance(
    recipe="module", commit="unknown", seed=0, steps=0, dataset="drawn", data={}, metrics={}, versions={}, opset=OPSET
)
FREE = {"height": AxisRange(min=8, max=20), "width": AxisRange(min=8, max=16)}
FOURS = {"height": AxisRange(min=8, max=20, multiple_of=4), "width": AxisRange(min=8, max=16, multiple_of=4)}
SIZES = ((8, 8), (12, 8), (16, 16))
FEW = RequestLimits(max_items=8)


@dataclass(frozen=True, kw_only=True)
class Tiny:
    """A module, its contract and its examples. `is_file` says that the graph comes as a file."""

    module: nn.Module
    reader: Reader
    head: Head
    outputs: Specs = ()
    inputs: Specs = ()
    examples: Mapping[str, Array]
    targets: Array | None = None
    limits: RequestLimits = FEW
    is_file: bool = False
    invariance: Literal["bitwise", "tolerance"] = "bitwise"


class Regression(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 12), nn.Tanh(), nn.Linear(12, 2))

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features)


class Classifier(nn.Module):
    """Probabilities of flattened pictures or numbers; `activation` is softmax or sigmoid."""

    def __init__(self, num_inputs: int, num_labels: int, activation: str) -> None:
        super().__init__()
        self.activation = activation
        self.layers = nn.Sequential(nn.Linear(num_inputs, 12), nn.ReLU(), nn.Linear(12, num_labels))

    def forward(self, images: Tensor) -> Tensor:
        logits = self.layers(images.to(self.layers[0].weight.dtype).flatten(1) / 255)
        return logits.softmax(-1) if self.activation == "softmax" else logits.sigmoid()


class Table(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(4, 3)
        self.layers = nn.Sequential(nn.Linear(5, 10), nn.Tanh(), nn.Linear(10, 3))

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        features = torch.cat([numbers, self.embedding(categories[:, 0])], dim=1)
        return self.layers(features).softmax(-1)


class Tagger(nn.Module):
    """Labels of every step of a series, from an LSTM in each direction."""

    def __init__(self) -> None:
        super().__init__()
        self.forth, self.back = (Ragged(nn.LSTM(CHANNELS, 5, batch_first=True)) for _ in range(2))
        self.head = nn.Linear(10, 3)

    def forward(self, series: Tensor, lengths: Tensor) -> Tensor:
        # Step t of a row of n steps is step n - 1 - t of the row backwards.
        places = (lengths[:, None] - 1 - torch.arange(series.shape[1])).clamp(min=0)[:, :, None]
        forth, _ = self.forth(series, lengths)
        back, _ = self.back(series.gather(1, places.expand(-1, -1, CHANNELS)), lengths)
        return self.head(torch.cat([forth, back.gather(1, places.expand(-1, -1, 5))], dim=-1)).softmax(-1)


class Embedding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 6)

    def forward(self, images: Tensor) -> Tensor:
        y = self.layer(images.to(self.layer.weight.dtype).flatten(1) / 255)
        return y / (y * y).sum(-1, keepdim=True).sqrt()


class UNet(nn.Module):
    """A picture of the size of its input, which is halved twice and doubled again."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.inner, self.lowest = (nn.Conv2d(i, 4, 3, padding=1) for i in (1, 4, 4))
        self.grow = nn.ConvTranspose2d(4, 4, 2, stride=2)
        self.up, self.last = nn.Conv2d(8, 4, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        x = self.down(images[:, None].to(self.down.weight.dtype) / 255).relu()
        y = self.inner(nn.functional.max_pool2d(x, 2)).relu()
        z = self.lowest(nn.functional.max_pool2d(y, 2)).relu()
        y = self.up(torch.cat([y, self.grow(z)], dim=1)).relu()
        y = nn.functional.interpolate(y, scale_factor=2.0, mode="nearest")
        y = self.last(torch.cat([x, y], dim=1)).sigmoid()
        return (y[:, 0] * 255).round().to(torch.uint8)


class Detector(nn.Module):
    """Boxes and scores of a picture of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.boxes, self.scores = nn.Linear(6, 8), nn.Linear(6, 2)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = self.conv(images.permute(0, 3, 1, 2).to(self.conv.weight.dtype) / 255).relu().mean((2, 3))
        return self.boxes(x).reshape(-1, 2, 4), self.scores(x).sigmoid()


class Unbatched(nn.Module):
    """Takes one matrix and a flag without a batch axis."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, matrix: Tensor, flags: Tensor) -> Tensor:
        return torch.where(flags[:, None], self.layer(matrix), matrix.sum(1, keepdim=True))


class Positional(nn.Module):
    """A module whose inputs are positional, whatever their number."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> Any:
        return self.module(*inputs)


def predict_with(module: nn.Module, inputs: Specs, outputs: Specs) -> Predict:
    """The reference of a module with positional inputs and outputs."""

    def predict(arrays: Mapping[str, Array]) -> dict[str, Array]:
        dtype = next(module.parameters()).dtype
        tensors = [torch.from_numpy(np.ascontiguousarray(arrays[spec.name])) for spec in inputs]
        with torch.no_grad():
            results = module(*(one.to(dtype) if one.is_floating_point() else one for one in tensors))
        results = results if isinstance(results, tuple) else (results,)
        return {spec.name: result.numpy() for spec, result in zip(outputs, results, strict=True)}

    return predict


@cache
def make_source(name: str) -> tuple[nn.Module, Source]:
    """The module and the source of a tiny model, made once."""
    torch.manual_seed(0)
    tiny = TINY[name](np.random.default_rng(0))
    module = Positional(randomize(tiny.module)).eval()
    inputs = tiny.inputs or tiny.reader.inputs  # type: ignore[union-attr]
    outputs = tiny.outputs or tiny.head.outputs(tiny.reader)
    source = Source(
        name=name,
        summary=f"A tiny model, {name}.",
        reader=tiny.reader,
        head=tiny.head,
        inputs=inputs,
        outputs=outputs,
        limits=tiny.limits,
        examples=Split(inputs=tiny.examples, targets=np.empty(0, np.int64) if tiny.targets is None else tiny.targets),
        predict=predict_with(module, inputs, outputs),
        predict_float64=None if tiny.is_file else predict_with(copy.deepcopy(module).double(), inputs, outputs),
        module=None if tiny.is_file else module,
        provenance=PROVENANCE if not tiny.is_file else PROVENANCE.model_copy(update={"reference": "the given outputs"}),
        note="Drawn from a seed.",
        invariance=tiny.invariance,
    )
    return module, source


@cache
def make_candidate(name: str) -> Candidate:
    """The exported candidate of a tiny source, made once."""
    module, source = make_source(name)
    graph = _graph(module, source) if source.module is None else strip_metadata(export_program(source))
    return build_candidate(source, graph)


def _graph(module: nn.Module, source: Source) -> bytes:
    """The graph with free axes of any name, traced at sizes within their bounds."""
    sizes = {"batch": 3, **{axis: one.clip((one.min + one.max) // 2) for axis, one in source.limits.axes.items()}}
    dynamic = tuple({i: axis for i, axis in enumerate(spec.shape) if isinstance(axis, str)} for spec in source.inputs)
    examples = tuple(
        torch.zeros(
            [sizes[axis] if isinstance(axis, str) else axis for axis in spec.shape], dtype=getattr(torch, spec.dtype)
        )
        for spec in source.inputs
    )
    with torch.no_grad(), silence_exporter():
        program = torch.onnx.export(
            module,
            examples,
            dynamo=True,
            opset_version=OPSET,
            input_names=[spec.name for spec in source.inputs],
            output_names=[spec.name for spec in source.outputs],
            dynamic_shapes=(dynamic,),
            verbose=False,
        )
    assert program is not None
    return strip_metadata(program)


def _pictures(rng: np.random.Generator, *shape: int) -> Array:
    return rng.integers(0, 256, (NUM_EXAMPLES, *shape), dtype=np.uint8)


def _free_pictures(rng: np.random.Generator, *channels: int) -> dict[str, Array]:
    """Pictures of three sizes, padded to the largest."""
    images = _pictures(rng, 16, 16, *channels)
    sizes = np.array([SIZES[item % len(SIZES)] for item in range(NUM_EXAMPLES)], np.int64)
    for image, (height, width) in zip(images, sizes, strict=True):
        image[height:] = 0
        image[:, width:] = 0
    return {"images": images, "height": sizes[:, 0], "width": sizes[:, 1]}


def _regression(rng: np.random.Generator) -> Tiny:
    return Tiny(
        module=Regression(),
        reader=TensorsReader(),
        head=ValuesHead(names=("price", "size"), units=("EUR", "")),
        inputs=(float32("features", "batch", 5),),
        examples={"features": rng.normal(3, 2, (NUM_EXAMPLES, 5)).astype(np.float32)},
        targets=rng.normal(0, 1, (NUM_EXAMPLES, 2)).astype(np.float32),
    )


def _multilabel(rng: np.random.Generator) -> Tiny:
    labels = ("red", "green", "blue", "round", "square")
    return Tiny(
        module=Classifier(64, 5, "sigmoid"),
        reader=ImageReader(height=8, width=8, mode="L"),
        head=MultilabelHead(labels=labels),
        examples={"images": _pictures(rng, 8, 8)},
        targets=rng.integers(0, 2, (NUM_EXAMPLES, 5)),
    )


def _resized(rng: np.random.Generator) -> Tiny:
    return Tiny(
        module=Classifier(64, 3, "softmax"),
        reader=ImageReader(height=8, width=8, mode="L", resize=Resize(shortest_edge=10, crop=(8, 8))),
        head=LabelsHead(labels=("ant", "bee", "cat")),
        examples={"images": _pictures(rng, 8, 8)},
        targets=rng.integers(0, 3, NUM_EXAMPLES),
    )


def _table(rng: np.random.Generator) -> Tiny:
    columns = (
        NumberColumn(name="age", low=0, high=120),
        CategoryColumn(name="colour", values=("red", "green", "blue", "black")),
        NumberColumn(name="weight"),
    )
    numbers = np.stack([rng.uniform(1, 90, NUM_EXAMPLES), rng.normal(0, 1, NUM_EXAMPLES)], 1).astype(np.float32)
    return Tiny(
        module=Table(),
        reader=TableReader(columns=columns),
        head=LabelsHead(labels=("low", "middle", "high")),
        examples={"numbers": numbers, "categories": rng.integers(0, 4, (NUM_EXAMPLES, 1))},
        targets=rng.integers(0, 3, NUM_EXAMPLES),
    )


def _tagger(rng: np.random.Generator) -> Tiny:
    lengths = rng.integers(2, 9, NUM_EXAMPLES)
    series = rng.normal(0, 1, (NUM_EXAMPLES, 8, CHANNELS)).astype(np.float32)
    series[np.arange(8) >= lengths[:, None]] = 0
    return Tiny(
        module=Tagger(),
        reader=SeriesReader(channels=CHANNELS),
        head=TokenLabelsHead(labels=("begin", "inside", "outside")),
        examples={"series": series, "lengths": lengths},
        targets=rng.integers(0, 3, (NUM_EXAMPLES, 8)),
        limits=RequestLimits(max_items=8, max_steps=10),
    )


def _unet(rng: np.random.Generator) -> Tiny:
    return Tiny(
        module=UNet(),
        reader=ImageReader(height=None, width=None, mode="L"),
        head=ImageHead(height=None, width=None, mode="L"),
        examples=_free_pictures(rng),
        limits=RequestLimits(max_items=6, axes=FOURS),
        is_file=True,
    )


def _detector(rng: np.random.Generator) -> Tiny:
    return Tiny(
        module=Detector(),
        reader=ImageReader(height=None, width=None, mode="RGB"),
        head=TensorsHead(),
        outputs=(float32("boxes", "batch", 2, 4), float32("scores", "batch", 2)),
        examples=_free_pictures(rng, 3),
        invariance="tolerance",
        limits=RequestLimits(max_items=6, axes=FREE),
        is_file=True,
    )


def _embedding(rng: np.random.Generator) -> Tiny:
    return Tiny(
        module=Embedding(),
        reader=ImageReader(height=8, width=8, mode="L"),
        head=EmbeddingHead(size=6, normalized=True),
        examples={"images": np.maximum(_pictures(rng, 8, 8), 1)},
        invariance="tolerance",
    )


def _unbatched(rng: np.random.Generator) -> Tiny:
    return Tiny(
        module=Unbatched(),
        reader=TensorsReader(),
        head=TensorsHead(),
        inputs=(float32("matrix", "rows", 3), tensor("bool", "flags", "rows")),
        outputs=(float32("result", "rows", 4),),
        examples={
            "matrix": rng.normal(0, 1, (NUM_EXAMPLES, 6, 3)).astype(np.float32),
            "flags": rng.random((NUM_EXAMPLES, 6)) < 0.5,
            "rows": rng.integers(2, 7, NUM_EXAMPLES),
        },
        limits=RequestLimits(max_items=1, axes={"rows": AxisRange(min=2, max=9)}),
        is_file=True,
    )


TINY: dict[str, Callable[[np.random.Generator], Tiny]] = {
    "tiny-regression": _regression,
    "tiny-multilabel": _multilabel,
    "tiny-resized": _resized,
    "tiny-table": _table,
    "tiny-bi-tagger": _tagger,
    "tiny-unet": _unet,
    "tiny-detector": _detector,
    "tiny-embedding": _embedding,
    "tiny-unbatched": _unbatched,
}
