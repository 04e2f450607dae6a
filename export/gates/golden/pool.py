"""The pool from which golden rows are chosen: test items, random items and structured items.

Structured items are blank, faint, inverted and sparse pictures, series of other scales, and every word of the
vocabulary alone. Some cases of the pool are mandatory, because they have the shapes at which a graph may fail: ragged
batches, the longest item, every length at which the service may pad, several sizes of free axes, and every capacity of
a cache.

Shapes: B batch, T steps.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from export.candidate import Candidate
from export.gates.cases import ITEMS, Array, Items, draw_case
from export.gates.golden.decoding import mandatory_prompts, optional_prompts
from export.gates.inputs.effort import max_rows, row_elements
from export.gates.inputs.sizes import Sizes, free_axes, grid_sizes, longest_row, smallest_sizes
from export.gates.inputs.values import within_domain
from service.bundle import Tensors
from service.contract.heads import LanguageModelHead
from service.contract.pairs import is_latent_generator
from service.contract.readers import ImageReader, SeriesReader, TextReader
from service.contract.tensors import FLOATS
from service.engine.verification.shapes import doubling_with_midpoints
from service.manifest import Manifest

# Batch, steps, source of the items: ragged rows with garbage as padding. The example of the trace has other sizes.
RAGGED_SIZES: tuple[tuple[int, int, Items], ...] = ((3, 7, "random"), (1, 1, "test"), (2, 1 << 30, "test"))
FIRST_LENGTH = 8
MAX_POOL_ROWS, MAX_POOL_BYTES = 512, 500_000
# Rows of a model from elsewhere may be large: its pool has at least MIN_POOL_ROWS of them in groups of LARGE_GROUP.
MIN_POOL_ROWS, LARGE_GROUP, MAX_LARGE_POOL_BYTES = 48, 8, 8 << 20
# A pool has this share of the rows that a part of another gate computes.
POOL_SHARE = 4
# The rows at several sizes of free axes.
MAX_AXIS_BYTES = 4 << 20
# Of larger vocabularies, evenly spaced words are read.
MAX_WORDS = 16_384
# A group has rows of one source and one length. The trace has groups of another size.
GROUP_ROWS = 16
GROUP_STEPS = (1, 2, 3, 5, 12, 20)


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Inputs of batches. `mandatory` ones become golden cases as they are; the others offer their rows one by one."""

    mandatory: tuple[Tensors, ...]
    optional: tuple[Tensors, ...]


def draw_pool(candidate: Candidate, *, seed: int) -> Pool:
    """Draw the pool. Other seeds draw other items of the same sources."""
    rng = np.random.default_rng(seed)
    if isinstance(candidate.manifest.head, LanguageModelHead):
        return Pool(
            mandatory=tuple(mandatory_prompts(candidate, rng)), optional=tuple(optional_prompts(candidate, rng))
        )
    mandatory = (
        *_ragged_batches(candidate, rng),
        *_bucket_batches(candidate, rng),
        *_axis_batches(candidate, rng),
        *_vocabulary_batches(candidate),
    )
    return Pool(mandatory=mandatory, optional=tuple(_optional_batches(candidate, rng)))


def num_rows(tensors: Tensors) -> int:
    return len(next(iter(tensors.values())))


def row_bytes(tensors: Tensors) -> int:
    """The size of one row of a batch."""
    return sum(array.nbytes // len(array) for array in tensors.values())


def _ragged_batches(candidate: Candidate, rng: np.random.Generator) -> Iterator[Tensors]:
    longest = longest_row(candidate.manifest)
    for batch, max_steps, source in RAGGED_SIZES:
        steps = None if longest is None else min(max_steps, longest)
        yield _draw(candidate, min(batch, candidate.manifest.limits.max_items), steps, source, rng)


def _bucket_batches(candidate: Candidate, rng: np.random.Generator) -> Iterator[Tensors]:
    """One row at each length to which the service may pad, and one that is a step longer."""
    longest = longest_row(candidate.manifest)
    for length in () if longest is None else doubling_with_midpoints(FIRST_LENGTH, longest):
        yield _draw(candidate, 1, length, "random", rng)
        if 2 * length < (longest or 0):
            yield _draw(candidate, 1, length + 1, "test", rng)


def _axis_batches(candidate: Candidate, rng: np.random.Generator) -> Iterator[Tensors]:
    """One row at each of several sizes of the free axes, the smallest first, as far as the bytes allow."""
    manifest, longest, total = candidate.manifest, longest_row(candidate.manifest), 0
    for number, sizes in enumerate(grid_sizes(manifest) if free_axes(manifest) else ()):
        total += sum(row_elements(spec, sizes) * spec.numpy_dtype.itemsize for spec in manifest.inputs)
        if number and total > MAX_AXIS_BYTES:
            return
        steps = None if longest is None else min(GROUP_STEPS[-1], longest)
        yield _draw(candidate, 1, steps, ITEMS[number % 2], rng, sizes)


def _vocabulary_batches(candidate: Candidate) -> Iterator[Tensors]:
    """Every word alone, so that no row of the embedding is unread, of at most MAX_WORDS."""
    reader, max_items = candidate.manifest.reader, candidate.manifest.limits.max_items
    vocabulary = reader.vocabulary if isinstance(reader, TextReader) else 0
    ids = np.unique(np.linspace(0, vocabulary - 1, min(vocabulary, MAX_WORDS)).astype(np.int64))
    for start in range(0, len(ids), max_items):
        rows = ids[start : start + max_items, None]
        yield {"ids": rows, "lengths": np.ones(len(rows), np.int64)}


def _optional_batches(candidate: Candidate, rng: np.random.Generator) -> Iterator[Tensors]:
    """Groups of every source and length in turn, until the pool is full."""
    manifest, longest = candidate.manifest, longest_row(candidate.manifest)
    lengths = [None] if longest is None else [n for n in GROUP_STEPS if n <= longest]
    batch = min(GROUP_ROWS, manifest.limits.max_items)
    max_bytes = max_pool_bytes(candidate, MAX_POOL_BYTES, MIN_POOL_ROWS)
    batch = batch if max_bytes == MAX_POOL_BYTES else min(batch, LARGE_GROUP)
    is_generator = is_latent_generator(manifest.reader, manifest.head, manifest.inputs)
    size_bytes = 0
    # Each mutant computes the whole pool, and each load the rows that are chosen from it.
    num_pool_rows = min(MAX_POOL_ROWS, max(MIN_POOL_ROWS, max_rows(candidate, smallest_sizes(manifest)) // POOL_SHARE))
    for number in range(num_pool_rows // batch):
        steps, source = lengths[number % len(lengths)], ITEMS[number // len(lengths) % 2]
        inputs = _draw(candidate, batch, steps, source, rng)
        structured = _structured(manifest, inputs, number // (2 * len(lengths)), rng)
        if is_generator:
            _raise_latents(structured["latents"], number * batch)
        yield _within_domain(candidate.manifest, structured)
        size_bytes += batch * row_bytes(inputs)
        if size_bytes > max_bytes:
            return


def max_pool_bytes(candidate: Candidate, usual: int, num_rows: int) -> int:
    """The bytes of a pool or of chosen rows: of a model from elsewhere, those of `num_rows` rows if they are more."""
    if candidate.source.run is not None:
        return usual
    sizes = grid_sizes(candidate.manifest)[0]
    row = sum(row_elements(spec, sizes) * spec.numpy_dtype.itemsize for spec in candidate.manifest.inputs)
    return max(usual, min(num_rows * row, MAX_LARGE_POOL_BYTES))


def _draw(  # noqa: PLR0917
    candidate: Candidate,
    batch: int,
    steps: int | None,
    items: Items,
    rng: np.random.Generator,
    sizes: Sizes | None = None,
) -> Tensors:
    case = draw_case(candidate.source, candidate.manifest, batch=batch, steps=steps, items=items, rng=rng, sizes=sizes)
    return _within_domain(candidate.manifest, case.inputs)


def _within_domain(manifest: Manifest, inputs: Tensors) -> Tensors:
    return {name: within_domain(manifest, name, array) for name, array in inputs.items()}


def _structured(manifest: Manifest, inputs: Tensors, variant: int, rng: np.random.Generator) -> Tensors:
    """Change the pictures and numbers of a group. The variants repeat; the first leaves them as they are."""
    changed = dict(inputs)
    for spec in manifest.inputs:
        is_state = isinstance(manifest.reader, SeriesReader) and spec.name in {"h", "c"}
        if isinstance(manifest.reader, ImageReader) or (spec.dtype in FLOATS and not is_state):
            changed[spec.name] = _variant(inputs[spec.name], variant % 4, rng)
    return changed


def _raise_latents(latents: Array, first: int) -> None:
    """Make another latent of each row large, so that each latent is the largest of some row."""
    rows = np.arange(len(latents))
    latents[rows, (first + rows) % latents.shape[1]] += 3


def _variant(values: Array, variant: int, rng: np.random.Generator) -> Array:
    match variant, values.dtype.kind:
        case 0, _:
            return values
        case 1, "u":
            return (255 - values).astype(np.uint8)
        case 2, "u":
            return np.where(rng.random(values.shape) < 0.5, 0, 255).astype(np.uint8)
        case 1 | 2, _:
            return (values * (0.1 if variant == 1 else 3.0)).astype(values.dtype)
        case _:
            sparse = np.where(rng.random(values.shape) < 0.9, 0, values).astype(values.dtype)
            # The first row is blank.
            sparse[0] = 0
            return sparse
