"""Finished runs of tiny models of every family, made in milliseconds from seeded weights and seeded data.

The targets are the model's own predictions with a few of them changed, so no accuracy is 0 or 1.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split as SplitOn
from torch import Tensor, nn

from training import checkpoint
from training.evaluation import evaluate
from training.families import FAMILIES
from training.layers import Pixels, Ragged, Standardize
from training.recipe import FamilyName, Recipe, Split, Tolerance

CLASSES = 4
CHANNELS = 3
CHARACTERS = "\n abcdefghijklmnopqrstuvwxyz."
WORDS = [
    "[PAD]",
    "[UNK]",
    *[
        "ash",
        "birch",
        "cedar",
        "elm",
        "fir",
        "gum",
        "hazel",
        "ivy",
        "larch",
        "maple",
        "oak",
        "pine",
        "rowan",
        "sorb",
        "teak",
        "yew",
    ],
]
NUM_TEST = 48


class ImageModel(nn.Module):
    def __init__(self, colour: bool) -> None:
        super().__init__()
        channels = 3 if colour else 1
        self.layers = nn.Sequential(
            Pixels([0.3] * channels, [0.2] * channels),
            nn.Conv2d(channels, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(6 * 16, CLASSES),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


class SeriesModel(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.standardize = Standardize([0.5] * CHANNELS, [1.5] * CHANNELS)
        self.ragged = Ragged(getattr(nn, kind)(CHANNELS, 8, num_layers=2, batch_first=True))
        self.head = nn.Linear(8, CLASSES)

    def forward(self, series: Tensor, lengths: Tensor) -> Tensor:
        _, state = self.ragged(self.standardize(series), lengths)
        return self.head(state[0][-1])


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ragged = Ragged(nn.LSTM(CHANNELS, 6, batch_first=True))
        self.head = nn.Linear(6, CLASSES)

    def forward(self, series: Tensor, lengths: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        state = (h.transpose(0, 1).contiguous(), c.transpose(0, 1).contiguous())
        y, (next_h, next_c) = self.ragged(series, lengths, state)
        return self.head(y), next_h.transpose(0, 1), next_c.transpose(0, 1)


class TextModel(nn.Module):
    """Attention pooling over an LSTM's steps, which needs a mask of the padding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(WORDS), 5)
        self.ragged = Ragged(nn.LSTM(5, 6, batch_first=True))
        self.query = nn.Parameter(torch.zeros(6))
        self.head = nn.Linear(6, CLASSES)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        y, _ = self.ragged(self.embedding(ids), lengths)
        is_padding = torch.arange(ids.shape[1]) >= lengths[:, None]
        weights = (y @ self.query).masked_fill(is_padding, -torch.inf).softmax(-1)
        return self.head((weights[:, :, None] * y).sum(1))


class CausalModel(nn.Module):
    def __init__(self, norm_first: bool, activation: str, num_layers: int) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            16, 2, 32, dropout=0.0, batch_first=True, norm_first=norm_first, activation=activation
        )
        self.embedding = nn.Embedding(len(CHARACTERS), 16)
        if norm_first:
            self.positions: Any = nn.Embedding(24, 16)
        else:
            self.register_buffer("positions", torch.zeros(24, 16))
        norm = nn.LayerNorm(16) if norm_first else None
        self.encoder = nn.TransformerEncoder(layer, num_layers, norm=norm, enable_nested_tensor=False)
        self.head = nn.Linear(16, len(CHARACTERS))

    def forward(self, ids: Tensor) -> Tensor:
        steps = torch.arange(ids.shape[1])
        positions = self.positions(steps) if isinstance(self.positions, nn.Embedding) else self.positions[steps]
        x = self.embedding(ids) + positions
        mask = torch.ones(len(steps), len(steps), dtype=torch.bool).triu(1)
        return self.head(self.encoder(x, mask=mask, is_causal=True))


class Gan(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(
            nn.Linear(10, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 64), nn.Tanh(), nn.Unflatten(1, (8, 8))
        )
        self.discriminator = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))


def recipe(name: str, family: FamilyName, build: Callable[..., nn.Module], **more: Any) -> Recipe:
    return Recipe(
        name=name, family=family, summary=f"A tiny {family}.", load=_no_data, build=build,
        batch_size=8, steps=1, steps_real=1, learning_rate=0.1, **more,
    )  # fmt: skip


def _no_data(_: Path | None) -> Any:
    raise AssertionError("export must not open the data set")


LANGUAGE = Tolerance(atol=5e-5)
RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        recipe("tiny-picture", "image-classifier", lambda: ImageModel(False)),
        recipe("tiny-colour", "image-classifier", lambda: ImageModel(True)),
        recipe("tiny-rnn", "series-classifier", lambda: SeriesModel("RNN"), max_steps=11),
        recipe("tiny-lstm", "series-classifier", lambda: SeriesModel("LSTM"), max_steps=11),
        recipe("tiny-tagger", "series-tagger", Tagger, max_steps=11),
        recipe("tiny-text", "text-classifier", TextModel, max_steps=12),
        recipe(
            "tiny-language", "language-model", lambda: CausalModel(False, "relu", 2), max_steps=24, tolerance=LANGUAGE
        ),
        recipe(
            "tiny-prenorm", "language-model", lambda: CausalModel(True, "gelu", 1), max_steps=24, tolerance=LANGUAGE
        ),
        recipe("tiny-gan", "image-generator", Gan),
    )
}


def make_run(folder: Path, name: str, *, seed: int = 0) -> checkpoint.Run:
    """Write a run folder as training does, and load it."""
    recipe = RECIPES[name]
    torch.manual_seed(seed)
    model = randomize(recipe.build()).eval()
    test, tokenizer = DATA[recipe.family](recipe, model, np.random.default_rng(seed))
    labels = () if recipe.family in {"language-model", "image-generator"} else ("ant", "bee", "cat", "dog")
    metrics = {f"test_{key}": value for key, value in _metrics(recipe, model, test).items()}
    folder.mkdir(parents=True)
    facts = finished(recipe, config={}, labels=labels, metrics=metrics)
    checkpoint.finish_run(folder, model=model, test=test, tokenizer=tokenizer, facts=facts)
    return checkpoint.load_run(folder, RECIPES)


def finished(
    recipe: Recipe, *, config: Mapping[str, Any], labels: tuple[str, ...], metrics: Mapping[str, float]
) -> dict[str, Any]:
    """The facts that a checkpoint records."""
    return {
        "recipe": recipe.name,
        "family": recipe.family,
        "summary": recipe.summary,
        "config": config,
        "labels": labels,
        "seed": 0,
        "steps": 2,
        "best_step": 1,
        "seconds": 0.1,
        "device": "cpu",
        "threads": 1,
        "data": {"name": "tiny", "note": "Drawn from a seed.", "sha256": {"seed": "0" * 64}},
        "metrics": metrics,
        "curves": [{"step": 1, "train_loss": 2.0, "validation_loss": 2.1}, {"step": 2, "train_loss": 1.0}],
        "versions": {"torch": torch.__version__},
        "commit": "unknown",
    }


def randomize(model: nn.Module) -> nn.Module:
    """Change all weights, biases and running statistics, so that none is 0 or 1 and outputs are far from uniform."""
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2.0)
        elif tensor.is_floating_point() and not name.endswith(("mean", "std")):
            tensor.copy_(tensor * 1.5 + 0.2 * torch.randn_like(tensor))
    return model


def _metrics(recipe: Recipe, model: nn.Module, test: Split) -> dict[str, float]:
    return evaluate(recipe.family, lambda inputs: FAMILIES[recipe.family].predict(model, inputs), test)


def _labelled_split(recipe: Recipe, model: nn.Module, inputs: Mapping[str, Any], rng: np.random.Generator) -> Split:
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    logits = FAMILIES[recipe.family].predict(model, tensors)["logits"]
    if recipe.family == "series-tagger":
        logits = logits[torch.arange(len(logits)), tensors["lengths"] - 1]
    targets = logits.argmax(-1).numpy()
    targets[::6] = rng.integers(0, CLASSES, len(targets[::6]))
    return Split(inputs=inputs, targets=targets)


def _images(recipe: Recipe, model: Any, rng: np.random.Generator) -> tuple[Split, None]:
    shape = (NUM_TEST, 8, 8) if len(model.layers[0].mean) == 1 else (NUM_TEST, 8, 8, 3)
    return _labelled_split(recipe, model, {"images": rng.integers(0, 256, shape, dtype=np.uint8)}, rng), None


def _series(recipe: Recipe, model: Any, rng: np.random.Generator) -> tuple[Split, None]:
    lengths = rng.integers(2, 10, NUM_TEST)
    series = rng.normal(0.5, 1.5, (NUM_TEST, 9, CHANNELS)).astype(np.float32)
    series[np.arange(9) >= lengths[:, None]] = 0
    return _labelled_split(recipe, model, {"series": series, "lengths": lengths}, rng), None


def _texts(recipe: Recipe, model: Any, rng: np.random.Generator) -> tuple[Split, str]:
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = SplitOn(Regex(r"\s+"), "removed")
    texts = tuple(" ".join(rng.choice([*WORDS[2:], "larix"], rng.integers(1, 13))) for _ in range(NUM_TEST))
    tokens = [tokenizer.encode(text).ids for text in texts]
    ids = np.zeros((NUM_TEST, 12), np.int64)
    for row, token_ids in zip(ids, tokens, strict=True):
        row[: len(token_ids)] = token_ids
    inputs = {"ids": ids, "lengths": np.array([len(row) for row in tokens])}
    split = _labelled_split(recipe, model, inputs, rng)
    return Split(inputs=split.inputs, targets=split.targets, texts=texts), tokenizer.to_str()


def _language(recipe: Recipe, model: Any, rng: np.random.Generator) -> tuple[Split, str]:
    tokenizer = Tokenizer(WordLevel({char: i for i, char in enumerate(CHARACTERS)}, unk_token=" "))
    tokenizer.pre_tokenizer = SplitOn(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = Fuse()
    stream = rng.integers(0, len(CHARACTERS), 8 * 24 + 1)
    text = "".join(CHARACTERS[i] for i in stream[1:])
    windows = {"ids": stream[:-1].reshape(8, 24)}
    return Split(inputs=windows, targets=stream[1:].reshape(8, 24), texts=(text,)), tokenizer.to_str()


def _latents(recipe: Recipe, model: Any, rng: np.random.Generator) -> tuple[Split, None]:
    latents = rng.standard_normal((64, 10)).astype(np.float32)
    return Split(inputs={"latents": latents}, targets=np.zeros(0, np.int64)), None


DATA: dict[str, Callable[..., tuple[Split, str | None]]] = {
    "image-classifier": _images,
    "series-classifier": _series,
    "series-tagger": _series,
    "text-classifier": _texts,
    "language-model": _language,
    "image-generator": _latents,
}
