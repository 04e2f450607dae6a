"""Recipes that train within a second on data generated from a seed; together they use every family and learner."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor, nn

from training.augment import gaussian_noise, random_shift
from training.layers import Pixels, Ragged, Standardize
from training.learner import Muon
from training.models import mnist_gan
from training.recipe import Data, Recipe, Split

SIDE, CHANNELS, LETTERS, CONTEXT = 8, 3, "abcdefgh \n", 12
SHA256 = "0" * 64


def image_data(path: Path | None) -> Data:
    """Images of four classes; the class says which quarter is bright."""
    rng = np.random.default_rng(0 if path is None else int(path.read_text()))

    def split(num_items: int) -> Split:
        targets = rng.integers(0, 4, num_items)
        images = rng.integers(0, 100, (num_items, SIDE, SIDE), np.uint8)
        for image, target in zip(images, targets, strict=True):
            row, column = 4 * (target // 2), 4 * (target % 2)
            image[row : row + 4, column : column + 4] += 90
        return Split(inputs={"images": images}, targets=targets)

    return _data(split, ("north-west", "north-east", "south-west", "south-east"), {"mean": [0.3], "std": [0.2]})


def series_data(_path: Path | None) -> Data:
    """Ragged series of two classes: rising and falling."""
    rng = np.random.default_rng(1)

    def split(num_items: int) -> Split:
        targets, lengths = rng.integers(0, 2, num_items), rng.integers(1, 10, num_items)
        steps = np.arange(10, dtype=np.float32)[None, :, None]
        values = (targets * 2 - 1)[:, None, None] * (steps + 1) + rng.standard_normal((num_items, 10, CHANNELS))
        values[steps[..., 0].repeat(num_items, 0) >= lengths[:, None]] = 0
        return Split(inputs={"series": values.astype(np.float32), "lengths": lengths}, targets=targets)

    config = {"channels": CHANNELS, "labels": 2, "mean": [0.0] * CHANNELS, "std": [4.0] * CHANNELS}
    return _data(split, ("falling", "rising"), config)


def letter_data(_path: Path | None) -> Data:
    """Lines of text that repeat `abc` nine times and end with a random letter."""
    rng = np.random.default_rng(2)

    def split(num_items: int) -> Split:
        text = "".join("abc" * 9 + "abcdefgh"[rng.integers(0, 8)] + "\n" for _ in range(num_items))
        ids = np.array([LETTERS.index(letter) for letter in text])
        windows = len(ids) // CONTEXT
        windows -= windows * CONTEXT == len(ids)
        shape = (windows, CONTEXT)
        size = windows * CONTEXT
        return Split(
            inputs={"ids": ids[:size].reshape(shape)}, targets=ids[1 : size + 1].reshape(shape), texts=(text[:size],)
        )

    tokenizer = Tokenizer(WordLevel({letter: i for i, letter in enumerate(LETTERS)}, unk_token=" "))
    return _data(split, (), {"vocabulary": len(LETTERS)}, tokenizer.to_str())


def digit_data(path: Path | None) -> Data:
    """Images of 28 x 28 pixels, for the GAN."""
    data = image_data(path)
    enlarged = {
        name: Split(
            inputs={"images": part.inputs["images"].repeat(4, 1).repeat(4, 2)[:, 2:30, 2:30]}, targets=part.targets
        )
        for name, part in (("train", data.train), ("validation", data.validation))
    }
    latents = np.random.default_rng(3).standard_normal((110, mnist_gan.LATENT_SIZE), np.float32)
    test = Split(inputs={"latents": latents}, targets=np.zeros(0, np.int64))
    return replace(data, **enlarged, test=test, labels=(), config={})


def _data(split, labels, config, tokenizer=None) -> Data:
    return Data(
        name="tiny",
        note="Made from a seed.",
        train=split(200),
        validation=split(60),
        test=split(70),
        labels=labels,
        sha256={"seed": SHA256},
        tokenizer=tokenizer,
        config=config,
    )


class TinyImageClassifier(nn.Module):
    def __init__(self, *, mean, std) -> None:
        super().__init__()
        self.pixels = Pixels(mean, std)
        self.layers = nn.Sequential(
            nn.Linear(SIDE * SIDE, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 4)
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(self.pixels(images).flatten(1))


class TinySeriesClassifier(nn.Module):
    def __init__(self, *, channels, labels, mean, std) -> None:
        super().__init__()
        self.standardize = Standardize(mean, std)
        self.ragged = Ragged(nn.RNN(channels, 8, batch_first=True))
        self.head = nn.Linear(8, labels)

    def forward(self, series: Tensor, lengths: Tensor) -> Tensor:
        _, (h_LBN,) = self.ragged(self.standardize(series), lengths)
        return self.head(h_LBN[-1])


class TinyTagger(nn.Module):
    def __init__(self, *, channels, labels, mean, std) -> None:
        super().__init__()
        self.standardize = Standardize(mean, std)
        self.ragged = Ragged(nn.LSTM(channels, 8, batch_first=True))
        self.head = nn.Linear(8, labels)

    def forward(self, series: Tensor, lengths: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y_BTN, state = self.ragged(self.standardize(series), lengths, (h.transpose(0, 1), c.transpose(0, 1)))
        return self.head(y_BTN), state[0].transpose(0, 1), state[1].transpose(0, 1)


class TinyLanguageModel(nn.Module):
    def __init__(self, *, vocabulary) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, 16)
        self.head = nn.Linear(16, vocabulary)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.embedding(ids))


class TinyTiedModel(TinyLanguageModel):
    """The embedding is also the head, as in GPT-2."""

    def __init__(self, *, vocabulary) -> None:
        super().__init__(vocabulary=vocabulary)
        self.head.weight = self.embedding.weight


class TinyHiddenLayer(TinyTiedModel):
    """A hidden matrix between the embedding and the tied head."""

    def __init__(self, *, vocabulary) -> None:
        super().__init__(vocabulary=vocabulary)
        self.hidden = nn.Linear(16, 16)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.hidden(self.embedding(ids)).relu())


def _recipe(name, family, load, build, **fields) -> Recipe:
    sizes = {"batch_size": 16, "steps": 60, "steps_real": 80, "learning_rate": 1e-2, "evaluations": 6}
    return Recipe(name=name, family=family, summary=f"A tiny {family}.", load=load, build=build, **{**sizes, **fields})


RECIPES = {
    recipe.name: recipe
    for recipe in (
        _recipe(
            "tiny-images",
            "image-classifier",
            image_data,
            TinyImageClassifier,
            ema=0.9,
            augment=random_shift(max_pixels=1),
            label_smoothing=0.1,
        ),
        _recipe("tiny-baseline", "image-classifier", image_data, TinyImageClassifier),
        _recipe(
            "tiny-series",
            "series-classifier",
            series_data,
            TinySeriesClassifier,
            max_steps=16,
            augment=gaussian_noise(0.1),
        ),
        _recipe("tiny-series-no-noise", "series-classifier", series_data, TinySeriesClassifier, max_steps=16),
        _recipe("tiny-tagger", "series-tagger", series_data, TinyTagger, max_steps=16),
        _recipe("tiny-language", "language-model", letter_data, TinyLanguageModel, max_steps=64),
        _recipe("tiny-tied", "language-model", letter_data, TinyTiedModel, max_steps=64, ema=0.9),
        _recipe("tiny-muon", "language-model", letter_data, TinyHiddenLayer, max_steps=64, learner=Muon),
        _recipe("tiny-gan", "image-generator", digit_data, mnist_gan.MnistGan, learner=mnist_gan.Adversarial, ema=0.9),
    )
}


if __name__ == "__main__":
    from training.__main__ import main

    torch.set_num_threads(1)
    sys.exit(main(recipes=RECIPES))
