"""Input batches for comparing a graph with its PyTorch model: test items and random items, of any size and length.

Rows are ragged. Beyond a row's length the batch holds garbage instead of zeros, so a graph that reads it gives a wrong
output. A language model's case also says in which chunks its rows are fed, so that the cases cover prefill, decode, and
chunks on a filled cache. The same seed draws the same cases.

Shapes: B batch, T steps.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from export.source import Source
from service.bundle import Tensors
from service.contract.heads import LanguageModelHead
from service.contract.readers import TextReader
from service.contract.tensors import TensorSpec
from service.manifest import Manifest

BATCHES = (1, 2, 3, 16, 64)
# The grid also has the longest item of the model.
LENGTHS = (1, 2, 7)
# Batches with more steps than this are tested with random items only.
MAX_TEST_STEPS = 4096
# Inputs with a steps axis, and the state of a series tagger.
RAGGED = ("ids", "series")
STATES = ("h", "c")

Items = Literal["random", "test"]
ITEMS: tuple[Items, ...] = ("random", "test")
Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One input batch.

    `chunks`, for language models only, is an int64 array [chunks, batch] with the number of tokens of each row in each
    chunk. `rows` describes each row, if the rows have names. An extreme case has values that no test item has.
    """

    name: str
    inputs: Tensors
    chunks: npt.NDArray[np.int64] | None = None
    rows: tuple[str, ...] = ()
    is_extreme: bool = False

    def describe(self, row: int) -> str:
        """The case and, if it has a name, the row."""
        return f"{self.name}: {self.rows[row]}" if self.rows else self.name


def parity_cases(source: Source, manifest: Manifest) -> Iterator[Case]:
    """Every batch size with every length, with random items and, except for the largest batches, with test items.

    A language model has no batches of more than MAX_TEST_STEPS tokens: they take as long as all others.
    """
    longest = manifest.limits.max_steps
    is_cached = isinstance(manifest.head, LanguageModelHead)
    rng = np.random.default_rng(0)
    for steps in [None] if longest is None else sorted({min(n, longest) for n in LENGTHS} | {longest}):
        for batch in BATCHES:
            is_large = batch * (steps or 1) > MAX_TEST_STEPS
            for items in () if is_large and is_cached else ITEMS[:1] if is_large else ITEMS:
                yield draw_case(source, manifest, batch=batch, steps=steps, items=items, rng=rng)


def draw_case(
    source: Source, manifest: Manifest, *, batch: int, steps: int | None, items: Items, rng: np.random.Generator
) -> Case:
    """A batch whose first row has `steps` steps and whose other rows have at most `steps`."""
    sizes = {"batch": batch, "steps": steps or 1}
    inputs = {spec.name: _random_input(source, manifest, spec, sizes, rng) for spec in _model_inputs(manifest)}
    if items == "test":
        _overlay_test_items(source, inputs, rng)
    chunks = None
    if isinstance(manifest.head, LanguageModelHead):
        chunks = single_chunk(inputs["lengths"]) if items == "test" else random_chunks(inputs["lengths"], rng)
    size = f"batch {batch}" if steps is None else f"batch {batch}, {steps} steps"
    feeding = "" if chunks is None else ", one prefill" if len(chunks) == 1 else f", in {len(chunks)} chunks"
    return Case(name=f"{size}{feeding}, {items} items", inputs=inputs, chunks=chunks)


def draw_rows(source: Source, manifest: Manifest, lengths_B: Array, rng: np.random.Generator) -> Tensors:
    """Rows of these lengths (ones for a model without steps), with a test item in every second row."""
    sizes = {"batch": len(lengths_B), "steps": int(lengths_B.max())}
    inputs = {spec.name: _random_input(source, manifest, spec, sizes, rng) for spec in _model_inputs(manifest)}
    if "lengths" in inputs:
        inputs["lengths"] = lengths_B.astype(np.int64)
    items = rng.integers(0, len(source.examples), len(lengths_B))
    for row in range(1, len(lengths_B), 2):
        _overlay_test_item(source, inputs, row, int(items[row]), int(lengths_B[row]))
    return inputs


def single_chunk(lengths_B: Array) -> Array:
    """All tokens of each row in one prefill."""
    return lengths_B[None]


def random_chunks(lengths_B: Array, rng: np.random.Generator) -> Array:
    """A ragged prefill, one decoding step, a chunk of three, then the remaining tokens."""
    first_B = rng.integers(1, lengths_B + 1)
    chunks, remaining_B = [first_B], lengths_B - first_B
    for max_tokens in (1, 3, int(remaining_B.max(initial=0))):
        chunks.append(np.minimum(remaining_B, max_tokens))
        remaining_B = remaining_B - chunks[-1]
    return np.stack([chunk for chunk in chunks if chunk.any()])


def _model_inputs(manifest: Manifest) -> tuple[TensorSpec, ...]:
    """The inputs of the PyTorch model: those of the graph, without the cache of a language model."""
    if isinstance(manifest.head, LanguageModelHead):
        return manifest.inputs[0], TensorSpec(name="lengths", dtype="int64", shape=("batch",))
    return manifest.inputs


def _random_input(
    source: Source, manifest: Manifest, spec: TensorSpec, sizes: Mapping[str, int], rng: np.random.Generator
) -> Array:
    shape = tuple(sizes[axis] if isinstance(axis, str) else axis for axis in spec.shape)
    match spec.name:
        case "lengths":
            lengths_B = rng.integers(1, sizes["steps"] + 1, shape)
            lengths_B[0] = sizes["steps"]
            return lengths_B
        case "ids":
            assert isinstance(manifest.reader, TextReader)
            return rng.integers(0, manifest.reader.vocabulary, shape)
        case "images":
            return rng.integers(0, 256, shape, dtype=np.uint8)
        case "series":
            series = source.examples.inputs["series"]
            return rng.normal(series.mean(), 2 * series.std() + 1e-3, shape).astype(np.float32)
        case "h":
            return rng.uniform(-1, 1, shape).astype(np.float32)
        case _:
            return rng.standard_normal(shape).astype(np.float32)


def _overlay_test_items(source: Source, inputs: dict[str, Array], rng: np.random.Generator) -> None:
    """Overwrite random items with test items, cut to the steps of the batch. The first item is repeated to fill it."""
    batch = len(next(iter(inputs.values())))
    ragged = next((name for name in RAGGED if name in inputs), None)
    for row, item in enumerate(rng.integers(0, len(source.examples), batch)):
        steps = 1
        if ragged is not None:
            steps = inputs[ragged].shape[1]
            steps = steps if row == 0 else min(_item_length(source, ragged, item), steps)
            inputs["lengths"][row] = steps
        _overlay_test_item(source, inputs, row, item, steps)


def _overlay_test_item(source: Source, inputs: dict[str, Array], row: int, item: int, steps: int) -> None:
    """Overwrite one row with a test item, cut or repeated to these steps, in its initial state."""
    for name, array in inputs.items():
        if name in RAGGED:
            values = source.examples.inputs[name][item, : _item_length(source, name, item)]
            array[row, :steps] = np.resize(values, (steps, *values.shape[1:]))
        elif name in STATES:
            # A test item is a whole sequence, so it starts from the initial state.
            array[row] = 0
        elif name != "lengths":
            array[row] = source.examples.inputs[name][item]


def _item_length(source: Source, ragged: str, item: int) -> int:
    lengths = source.examples.inputs.get("lengths")
    return source.examples.inputs[ragged].shape[1] if lengths is None else int(lengths[item])
