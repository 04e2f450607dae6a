"""The items that every peer receives, with the output of onnxruntime for each item alone."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

NUM_ITEMS = 64
# The first NUM_FULL texts, those of the load, have STEPS tokens; the others are shorter and padded.
STEPS = 64
NUM_FULL = 32
NONZERO_SHARE = 0.19  # of the pixels of an MNIST digit


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The items of a model and their probabilities.

    `inputs` has images uint8 [items, 28, 28], or ids int64 [items, 64] and lengths int64 [items]. `texts` are the texts
    whose tokens are the ids, if the bundle has a tokenizer.
    """

    model: str
    file: Path
    inputs: Mapping[str, npt.NDArray[Any]]
    probabilities: npt.NDArray[np.float32]  # [items, labels]
    texts: tuple[str, ...]

    def rows(self, items: slice) -> dict[str, npt.NDArray[Any]]:
        return {name: values[items] for name, values in self.inputs.items()}


def load_workload(folder: Path) -> Workload:
    """The workload of the current bundle in `folder`."""
    current = folder / "current"
    if not current.exists():
        raise SystemExit(f"{folder.name}: no bundle in {folder}; run `make export` or name a folder with --bundles")
    version = folder / current.read_text().strip()
    inputs, texts = MODELS[folder.name](version, np.random.default_rng(0))
    session = ort.InferenceSession(version / "model.onnx", providers=["CPUExecutionProvider"])
    probabilities = [
        session.run(["probabilities"], {name: values[i : i + 1] for name, values in inputs.items()})[0][0]
        for i in range(NUM_ITEMS)
    ]
    return Workload(
        model=folder.name,
        file=(version / "model.onnx").resolve(),
        inputs=inputs,
        probabilities=np.stack(probabilities),
        texts=texts,
    )


def _images(_version: Path, rng: np.random.Generator) -> tuple[dict[str, npt.NDArray[Any]], tuple[str, ...]]:
    pixels = rng.integers(1, 256, (NUM_ITEMS, 28, 28), dtype=np.uint8)
    return {"images": pixels * (rng.random(pixels.shape) < NONZERO_SHARE).astype(np.uint8)}, ()


def _texts(version: Path, rng: np.random.Generator) -> tuple[dict[str, npt.NDArray[Any]], tuple[str, ...]]:
    lengths = np.where(np.arange(NUM_ITEMS) < NUM_FULL, STEPS, rng.integers(1, STEPS, NUM_ITEMS)).astype(np.int64)
    tokenizer = version / "tokenizer.json"
    if not tokenizer.exists():
        ids, texts = rng.integers(2, 1000, (NUM_ITEMS, STEPS)), ()
    else:
        ids, texts = _tokenized(tokenizer.read_text(), lengths, rng)
    return {"ids": ids * (np.arange(STEPS) < lengths[:, None]), "lengths": lengths}, texts


def _tokenized(
    content: str, lengths: npt.NDArray[np.int64], rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    """Texts of words that are one token each, so that a text of n words has n ids."""
    # Bundles without a tokenizer do not need this package.
    from tokenizers import Tokenizer  # noqa: PLC0415

    tokenizer = Tokenizer.from_str(content)
    words = sorted(word for word in json.loads(content)["model"]["vocab"] if word.isascii() and word.isalpha())
    words = [word for word in words if len(tokenizer.encode(word).ids) == 1]
    texts = tuple(" ".join(rng.choice(words, length)) for length in lengths)
    ids = np.zeros((NUM_ITEMS, STEPS), np.int64)
    for row, text in zip(ids, texts, strict=True):
        tokens = tokenizer.encode(text).ids
        row[: len(tokens)] = tokens
    return ids, texts


MODELS = {"mnist-cnn": _images, "news-lstm": _texts}
