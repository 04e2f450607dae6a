"""Modules as other people write them, with random weights: what `python -m export module` is proven with.

Each entry of MODELS has a factory, a spec, and examples with the answers of the module itself as targets.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

Arrays = dict[str, Any]


class Block(nn.Module):
    """Two convolutions with a shortcut (He et al. 2015, "Deep residual learning for image recognition")."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (y + self.downsample(x)).relu()


class ResNet18(nn.Module):
    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        )
        sizes = [(64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)]
        self.layers = nn.Sequential(*(block for a, b, s in sizes for block in (Block(a, b, s), Block(b, b, 1))))
        self.fc = nn.Linear(512, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layers(self.stem(x)).mean((2, 3)))


class Prices(nn.Module):
    """A regression of two numbers, trained on standardised targets."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 2))

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features)


class Topics(nn.Module):
    """Five labels of a small picture, each on its own."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten())
        self.out = nn.Linear(128, 5)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.out(self.body(pixels))


class Churn(nn.Module):
    """Numbers and a category, embedded."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(4, 3)
        self.layers = nn.Sequential(nn.Linear(2 + 3, 16), nn.ReLU(), nn.Linear(16, 2))

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        return self.layers(torch.cat([numbers, self.embedding(categories[:, 0])], 1))


class Tagger(nn.Module):
    """A bidirectional LSTM over packed sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 12, bidirectional=True, batch_first=True)
        self.out = nn.Linear(24, 4)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        hidden, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=x.shape[1])
        return self.out(hidden)


class UNet(nn.Module):
    """A mask of the size of the picture, whatever its sides: they are halved upwards, and the way up is cut to them."""

    def __init__(self) -> None:
        super().__init__()
        self.down1 = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.down2 = nn.Sequential(nn.MaxPool2d(2, ceil_mode=True), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU())
        self.middle = nn.Sequential(nn.MaxPool2d(2, ceil_mode=True), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())
        self.up2, self.up1 = nn.ConvTranspose2d(16, 16, 2, 2), nn.ConvTranspose2d(16, 8, 2, 2)
        self.merge2 = nn.Sequential(nn.Conv2d(32, 16, 3, padding=1), nn.ReLU())
        self.out = nn.Sequential(nn.Conv2d(16, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        a = self.down1(x)
        b = self.down2(a)
        up2 = self.up2(self.middle(b))[..., : b.shape[2], : b.shape[3]]
        up1 = self.up1(self.merge2(torch.cat([b, up2], 1)))[..., : a.shape[2], : a.shape[3]]
        return self.out(torch.cat([a, up1], 1))


class Detector(nn.Module):
    """Eight boxes and their scores, from a picture of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU())
        self.boxes, self.scores = nn.Linear(16, 32), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.body(x).mean((2, 3))
        return {"boxes": self.boxes(features).sigmoid().unflatten(1, (8, 4)), "scores": self.scores(features).sigmoid()}


def _pictures(rng: np.random.Generator, count: int, height: int, width: int) -> Any:
    """Gradients with noise, which differ more than noise alone."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    slopes = rng.normal(0, 120, (count, 2, 1, 1, 3))
    smooth = 128 + slopes[:, 0] * y[..., None] + slopes[:, 1] * x[..., None]
    return np.clip(smooth + rng.normal(0, 30, (count, height, width, 3)), 0, 255).astype(np.uint8)


def _resnet_examples(rng: np.random.Generator) -> Arrays:
    return {"images": _pictures(rng, 24, 224, 224), "labels": rng.integers(0, 1000, 24)}


def _price_examples(rng: np.random.Generator) -> Arrays:
    return {"x": rng.normal(2, 3, (200, 6)).astype(np.float32), "y": rng.normal(50, 9, (200, 2)).astype(np.float32)}


def _topic_examples(rng: np.random.Generator) -> Arrays:
    return {"images": _pictures(rng, 64, 32, 48), "labels": rng.integers(0, 2, (64, 5))}


def _churn_examples(rng: np.random.Generator) -> Arrays:
    numbers = np.stack([rng.uniform(18, 90, 200), rng.uniform(0, 1000, 200)], 1).astype(np.float32)
    return {
        "numbers": numbers,
        "categories": rng.choice(["north", "east", "south", "west"], (200, 1)),
        "labels": rng.choice(["stays", "goes"], 200),
    }


def _tagger_examples(rng: np.random.Generator) -> Arrays:
    lengths = rng.integers(1, 20, 120)
    return {
        "series": rng.normal(0, 1, (120, 20, 5)).astype(np.float32),
        "lengths": lengths,
        "targets": rng.integers(0, 4, (120, 20)),
    }


def _sized_examples(rng: np.random.Generator) -> Arrays:
    sizes = [(32, 48), (64, 32), (48, 64)]
    return {f"images.{i}": _pictures(rng, 16, *size) for i, size in enumerate(sizes)}


@dataclass(frozen=True, kw_only=True)
class Model:
    """`spec` is the text of spec.toml; `build` makes the module, `examples` the arrays of its .npz file."""

    build: Callable[[], nn.Module]
    spec: str
    examples: Callable[[np.random.Generator], Arrays]


MODELS = {
    "resnet": Model(
        build=ResNet18,
        spec="""
            summary = "ResNet-18"
            limits = { max_items = 16 }
            [reader]
            kind = "image"
            height = 224
            width = 224
            resize = { shortest_edge = 256, crop = [224, 224] }
            mean = [0.485, 0.456, 0.406]
            std = [0.229, 0.224, 0.225]
            [head]
            kind = "labels"
            labels = 1000
            """,
        examples=_resnet_examples,
    ),
    "prices": Model(
        build=Prices,
        spec="""
            summary = "Prices of flats"
            [reader]
            kind = "tensors"
            [[reader.inputs]]
            name = "features"
            dtype = "float32"
            shape = ["batch", 6]
            [head]
            kind = "values"
            names = ["price", "rent"]
            units = ["EUR", "EUR/month"]
            mean = [50, 50]
            std = [9, 9]
            """,
        examples=_price_examples,
    ),
    "topics": Model(
        build=Topics,
        spec="""
            summary = "What is in a picture"
            reader = { kind = "image", height = 32, width = 48 }
            [head]
            kind = "multilabel"
            labels = ["cat", "dog", "tree", "car", "sky"]
            threshold = 0.4
            """,
        examples=_topic_examples,
    ),
    "churn": Model(
        build=Churn,
        spec="""
            summary = "Who stays"
            head = { kind = "labels", labels = ["stays", "goes"] }
            [reader]
            kind = "table"
            [[reader.columns]]
            name = "age"
            kind = "number"
            low = 0
            high = 120
            [[reader.columns]]
            name = "spent"
            kind = "number"
            low = 0
            high = 10000
            [[reader.columns]]
            name = "region"
            kind = "category"
            values = ["north", "east", "south", "west"]
            """,
        examples=_churn_examples,
    ),
    "tagger": Model(
        build=Tagger,
        spec="""
            summary = "A label for each step"
            reader = { kind = "series", channels = 5 }
            head = { kind = "token-labels", labels = ["rest", "walk", "run", "jump"] }
            """,
        examples=_tagger_examples,
    ),
    "unet": Model(
        build=UNet,
        spec="""
            summary = "A mask of the picture's size"
            reader = { kind = "image", height = [32, 64], width = [32, 64] }
            head = { kind = "image", mode = "L" }
            """,
        examples=_sized_examples,
    ),
    "detector": Model(
        build=Detector,
        spec="""
            summary = "Boxes and their scores"
            reader = { kind = "image", height = [32, 64], width = [32, 64] }
            head = { kind = "tensors" }
            """,
        examples=_sized_examples,
    ),
}


def build(name: str) -> nn.Module:
    """The module with weights of a fixed seed, in which no layer of normalisation is trivial."""
    torch.manual_seed(0)
    module = MODELS[name].build()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0, 0.1)
            nn.init.normal_(layer.running_mean, 0, 0.1)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return module.eval()


def write_files(name: str, folder: Path) -> list[str]:
    """Write weights, examples and spec into the folder, and return the words of `python -m export` behind `module`."""
    folder.mkdir(parents=True, exist_ok=True)
    model = MODELS[name]
    save_file(build(name).state_dict(), folder / "weights.safetensors")
    np.savez(folder / "examples.npz", **model.examples(np.random.default_rng(0)))
    (folder / "spec.toml").write_text("\n".join(line.strip() for line in model.spec.strip().splitlines()))
    files = {flag: str(folder / file) for flag, file in FILES.items()}
    words = [word for flag, file in files.items() for word in (flag, file)]
    return [f"{__name__}:{model.build.__name__}", *words, "--name", name]


FILES = {"--weights": "weights.safetensors", "--examples": "examples.npz", "--spec": "spec.toml"}
