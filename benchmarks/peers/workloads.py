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

    `inputs` has images uint8 [items, height, width(, 3)], or ids int64 [items, steps] and lengths int64 [items].
    `texts` are the texts whose tokens are the ids. A request has at most `max_rows` items.
    """

    model: str
    file: Path
    inputs: Mapping[str, npt.NDArray[Any]]
    probabilities: npt.NDArray[np.float32]  # [items, labels]
    texts: tuple[str, ...]
    max_rows: int = NUM_FULL

    def rows(self, items: slice) -> dict[str, npt.NDArray[Any]]:
        """The inputs of some items; ids without the padding that none of them needs."""
        rows = {name: values[items] for name, values in self.inputs.items()}
        if "lengths" in rows:
            rows["ids"] = rows["ids"][:, : rows["lengths"].max()]
        return rows


def load_workload(folder: Path) -> Workload:
    """The workload of the current bundle in `folder`."""
    current = folder / "current"
    if not current.exists():
        raise SystemExit(f"{folder.name}: no bundle in {folder}; run `make export` or name a folder with --bundles")
    version = folder / current.read_text().strip()
    inputs, texts = {**MODELS, **LARGE_MODELS}[folder.name](version, np.random.default_rng(0))
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
        max_rows=min(json.loads((version / "manifest.json").read_text())["limits"]["max_items"], NUM_FULL),
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


def _pictures(_version: Path, rng: np.random.Generator) -> tuple[dict[str, npt.NDArray[Any]], tuple[str, ...]]:
    return {"images": rng.integers(0, 256, (NUM_ITEMS, 224, 224, 3), dtype=np.uint8)}, ()


def _mixed_ids(version: Path, rng: np.random.Generator) -> tuple[dict[str, npt.NDArray[Any]], tuple[str, ...]]:
    """Ids of all lengths that the model takes, equally often."""
    manifest = json.loads((version / "manifest.json").read_text())
    max_steps, vocabulary = manifest["limits"]["max_steps"], manifest["reader"]["vocabulary"]
    lengths = rng.permutation(np.linspace(2, max_steps, NUM_ITEMS).astype(np.int64))
    ids = rng.integers(0, vocabulary, (NUM_ITEMS, max_steps))
    return {"ids": ids * (np.arange(max_steps) < lengths[:, None]), "lengths": lengths}, ()


MODELS = {"mnist-cnn": _images, "news-lstm": _texts}
# Of `benchmarks.peers.large_models`; no recipe of this repository makes them.
LARGE_MODELS = {"resnet-18": _pictures, "bert-4x256": _mixed_ids}
