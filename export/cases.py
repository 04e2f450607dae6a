"""Inputs to compare a graph and its PyTorch model on: real items and random ones, at any batch and length.

Rows are ragged and what lies beyond a row's length is garbage, never zeros: a graph that looks there answers otherwise.
A language model's case also says in which chunks its rows are fed, so that prefill, decode and chunks on a filled cache
are all met. The same seed draws the same cases.

Shapes: B batch, T steps.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from service.bundle import Tensors
from service.families import LanguageModel, TensorSpec, TextClassifier
from service.manifest import Manifest
from training.checkpoint import Run

BATCHES = (1, 2, 3, 16, 64)
LENGTHS = (1, 2, 7)  # and the longest

LARGE = 4096  # steps in a batch

Source = Literal["random", "test"]
SOURCES: tuple[Source, ...] = ("random", "test")
Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Case:
    """`chunks` (language models only): int64 [stages, batch], how many tokens of each row each stage feeds."""

    name: str
    inputs: Tensors
    chunks: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))


def parity_cases(run: Run, manifest: Manifest) -> Iterator[Case]:
    """Every batch size with every length, at random and (but for the largest) from the test split."""
    longest = manifest.limits.max_steps
    rng = np.random.default_rng(0)
    for steps in [None] if longest is None else sorted({min(n, longest) for n in LENGTHS} | {longest}):
        for batch in BATCHES:
            for source in SOURCES if batch * (steps or 1) <= LARGE else SOURCES[:1]:
                yield draw(run, manifest, batch=batch, steps=steps, source=source, rng=rng)


def draw(
    run: Run, manifest: Manifest, *, batch: int, steps: int | None, source: Source, rng: np.random.Generator
) -> Case:
    """A batch whose first row has `steps` steps, and whose other rows have at most as many."""
    sizes = {"batch": batch, "steps": steps or 1}
    inputs = {spec.name: _random(run, manifest, spec, sizes, rng) for spec in _specs(manifest)}
    if source == "test":
        _overlay(run, inputs, rng)
    chunks = None
    if isinstance(manifest.parameters, LanguageModel):
        chunks = whole(inputs["lengths"]) if source == "test" else in_chunks(inputs["lengths"], rng)
    size = f"batch {batch}" if steps is None else f"batch {batch}, {steps} steps"
    how = "" if chunks is None else ", one prefill" if len(chunks) == 1 else f", in {len(chunks)} chunks"
    return Case(name=f"{size}{how}, {source} items", inputs=inputs, chunks=chunks)


def whole(lengths_B: Array) -> Array:
    return lengths_B[None]


def in_chunks(lengths_B: Array, rng: np.random.Generator) -> Array:
    """A ragged prefill, one decoding step, a chunk of three, then the rest."""
    first_B = rng.integers(1, lengths_B + 1)
    stages, left_B = [first_B], lengths_B - first_B
    for most in (1, 3, int(left_B.max(initial=0))):
        stages.append(np.minimum(left_B, most))
        left_B = left_B - stages[-1]
    return np.stack([stage for stage in stages if stage.any()])


def _specs(manifest: Manifest) -> tuple[TensorSpec, ...]:
    """The inputs of the model: those of the graph, a language model's cache aside."""
    if isinstance(manifest.parameters, LanguageModel):
        return manifest.inputs[0], TensorSpec(name="lengths", dtype="int64", shape=("batch",))
    return manifest.inputs


def _random(
    run: Run, manifest: Manifest, spec: TensorSpec, sizes: Mapping[str, int], rng: np.random.Generator
) -> Array:
    shape = tuple(sizes[axis] if isinstance(axis, str) else axis for axis in spec.shape)
    match spec.name:
        case "lengths":
            lengths_B = rng.integers(1, sizes["steps"] + 1, shape)
            lengths_B[0] = sizes["steps"]
            return lengths_B
        case "ids":
            assert isinstance(manifest.parameters, LanguageModel | TextClassifier)
            return rng.integers(0, manifest.parameters.vocabulary, shape)
        case "images":
            return rng.integers(0, 256, shape, dtype=np.uint8)
        case "series":
            items = run.test.inputs["series"]
            return rng.normal(items.mean(), 2 * items.std() + 1e-3, shape).astype(np.float32)
        case "h":
            return rng.uniform(-1, 1, shape).astype(np.float32)
        case _:
            return rng.standard_normal(shape).astype(np.float32)


def _overlay(run: Run, inputs: dict[str, Array], rng: np.random.Generator) -> None:
    """Put items of the test split where random ones are, cut (the first: repeated) to the steps that there are."""
    batch = len(next(iter(inputs.values())))
    chosen = rng.integers(0, len(run.test), batch)
    ragged = next((name for name in ("ids", "series") if name in inputs), None)
    if ragged is None:
        for name, array in inputs.items():
            array[:] = run.test.inputs[name][chosen]
        return
    steps, items = inputs[ragged].shape[1], run.test.inputs[ragged]
    own_lengths = run.test.inputs.get("lengths", np.full(len(items), items.shape[1]))
    for row, item in enumerate(chosen):
        length = int(own_lengths[item])
        kept = steps if row == 0 else min(length, steps)
        inputs["lengths"][row] = kept
        inputs[ragged][row, :kept] = np.resize(items[item, :length], (kept, *items.shape[2:]))
    for state in ("h", "c"):
        if state in inputs:
            inputs[state][:] = 0  # as at the beginning of a sequence
