"""Input batches for comparing a graph with its reference: test items and random items, of any size and length.

The first axis of every array counts the rows, wherever the graph has its batch axis. Rows with lengths are ragged:
beyond a row's length the batch holds garbage instead of zeros, so a graph that reads it gives a wrong output. All rows
have the same size of every other free axis. A language model's case also says in which chunks its rows are fed, so that
the cases cover prefill, decode, and chunks on a filled cache. The same seed draws the same cases.

Shapes: B batch, T steps.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from export.gates.inputs.effort import output_rows, output_steps
from export.gates.inputs.items import item_sizes, overlay_item
from export.gates.inputs.sizes import Sizes, clip_sizes, draw_sizes, grid_sizes, longest_row
from export.gates.inputs.values import random_values
from export.source import Source
from service.bundle import Tensors
from service.contract.heads import LanguageModelHead
from service.contract.tensors import TensorSpec
from service.engine.verification.slices import slices
from service.manifest import Manifest

BATCHES = (1, 2, 3, 16, 64)
FEW = 3
# The grid also has the longest item of the model.
LENGTHS = (1, 2, 7)
# Batches with more steps than this are tested with random items only.
MAX_TEST_STEPS = 4096

MaxRows = Callable[[Sizes, int | None], int]
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


def parity_cases(source: Source, manifest: Manifest, max_rows: MaxRows | None = None) -> Iterator[Case]:
    """Every batch size with every length or size, with random items and, except in the largest batches, test items.

    A language model has no batches of more than MAX_TEST_STEPS tokens, which take as long as all others, nor rows or
    batches of more outputs than fit into memory: its longest rows are compared in export.gates.coverage.cached. A
    model without a batch axis has one row. `max_rows` gives the most rows of a batch of some sizes and steps; batches
    of one row and of a few are always there.
    """
    longest = longest_row(manifest)
    is_cached = isinstance(manifest.head, LanguageModelHead)
    rng = np.random.default_rng(0)
    if is_cached and longest is not None:
        longest = output_steps(manifest, longest)
    for sizes in grid_sizes(manifest):
        for steps in [None] if longest is None else sorted({min(n, longest) for n in LENGTHS} | {longest}):
            for batch in BATCHES if manifest.is_batched else BATCHES[:1]:
                if max_rows is not None and batch > max(FEW, max_rows(sizes, steps)):
                    continue
                is_large = batch * (steps or 1) > MAX_TEST_STEPS
                is_large = is_large or (is_cached and output_rows(manifest, steps, batch) < batch)
                for items in () if is_large and is_cached else ITEMS[:1] if is_large else ITEMS:
                    yield draw_case(source, manifest, batch=batch, steps=steps, items=items, rng=rng, sizes=sizes)


def draw_case(
    source: Source,
    manifest: Manifest,
    *,
    batch: int,
    steps: int | None,
    items: Items,
    rng: np.random.Generator,
    sizes: Sizes | None = None,
) -> Case:
    """A batch whose first row has `steps` steps and whose other rows have at most `steps`.

    `sizes` are those of all other free axes; by default random ones, or those of a test item.
    """
    if sizes is None:
        sizes = draw_sizes(manifest, rng)
        if sizes and items == "test":
            item = int(rng.integers(len(source.examples)))
            sizes = clip_sizes(manifest, item_sizes(source, manifest, item))
    inputs = _random_inputs(source, manifest, batch, steps, sizes, rng)
    if items == "test":
        _overlay_items(source, manifest, inputs, steps, rng)
    chunks = None
    if isinstance(manifest.head, LanguageModelHead):
        chunks = single_chunk(inputs["lengths"]) if items == "test" else random_chunks(inputs["lengths"], rng)
    size = f"batch {batch}" if steps is None else f"batch {batch}, {steps} steps"
    free = "".join(f", {axis} {length}" for axis, length in sizes.items())
    feeding = "" if chunks is None else ", one prefill" if len(chunks) == 1 else f", in {len(chunks)} chunks"
    return Case(name=f"{size}{free}{feeding}, {items} items", inputs=inputs, chunks=chunks)


def draw_rows(
    source: Source, manifest: Manifest, lengths_B: Array, rng: np.random.Generator, sizes: Sizes | None = None
) -> Tensors:
    """Rows of these lengths (ones for a model without lengths), with a test item in every second row."""
    has_lengths = longest_row(manifest) is not None
    steps = int(lengths_B.max()) if has_lengths else None
    inputs = _random_inputs(source, manifest, len(lengths_B), steps, sizes or {}, rng)
    if has_lengths:
        inputs["lengths"] = lengths_B.astype(np.int64)
    items = rng.integers(0, len(source.examples), len(lengths_B))
    for row in range(1, len(lengths_B), 2):
        own_steps = int(lengths_B[row]) if has_lengths else None
        overlay_item(source, manifest, inputs, row, int(items[row]), own_steps)
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


def has_equal_bits(first: Array, second: Array) -> bool:
    """Whether two arrays hold the same bits; of texts, the same texts."""
    if first.dtype.hasobject:
        return first.shape == second.shape and bool((first == second).all())
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    return all(first[index].tobytes() == second[index].tobytes() for index in slices(first.shape))


def ragged_inputs(manifest: Manifest) -> frozenset[str]:
    """The inputs with the steps of rows that have lengths of their own."""
    if longest_row(manifest) is None:
        return frozenset()
    return frozenset(spec.name for spec in manifest.inputs if spec.row_shape[:1] == ("steps",))


def _model_inputs(manifest: Manifest) -> tuple[TensorSpec, ...]:
    """The inputs of the reference: those of the graph, without the cache of a language model."""
    if isinstance(manifest.head, LanguageModelHead):
        return manifest.inputs[0], TensorSpec(name="lengths", dtype="int64", shape=("batch",))
    return manifest.inputs


def _random_inputs(  # noqa: PLR0917
    source: Source, manifest: Manifest, batch: int, steps: int | None, sizes: Sizes, rng: np.random.Generator
) -> dict[str, Array]:
    sizes = sizes if steps is None else {**sizes, "steps": steps}
    inputs: dict[str, Array] = {}
    for spec in _model_inputs(manifest):
        shape = (batch, *(sizes[axis] if isinstance(axis, str) else axis for axis in spec.row_shape))
        if spec.name == "lengths" and steps is not None:
            inputs[spec.name] = rng.integers(1, steps + 1, shape)
            inputs[spec.name][0] = steps
        else:
            inputs[spec.name] = random_values(source, manifest, spec, shape, rng)
    return inputs


def _overlay_items(
    source: Source, manifest: Manifest, inputs: dict[str, Array], steps: int | None, rng: np.random.Generator
) -> None:
    """Overwrite random items with test items, cut to the steps of the batch. The first item is repeated to fill it."""
    batch = len(next(iter(inputs.values())))
    for row, item in enumerate(rng.integers(0, len(source.examples), batch).tolist()):
        own_steps = steps
        if steps is not None:
            own_steps = steps if row == 0 else min(item_sizes(source, manifest, item)["steps"], steps)
            inputs["lengths"][row] = own_steps
        overlay_item(source, manifest, inputs, row, item, own_steps)
