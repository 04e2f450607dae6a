"""Every length, every size of a free axis and every batch size, once each, against the reference.

A graph may be right at the sizes of the grid and differ at one size between them. Every length runs at a width of
exactly that length, and every batch size with as many different rows. The reference computes the rows in ragged
batches, because that takes less time than one run a length.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from export.candidate import Candidate
from export.gates.backends import Backend, reference_backend, session_backend
from export.gates.cases import ITEMS, Array, Case, draw_case, draw_rows, ragged_inputs
from export.gates.coverage.comparison import Comparison, Coverage
from export.gates.inputs.effort import max_rows, row_elements
from export.gates.inputs.sizes import Sizes, every_size, longest_row, smallest_sizes
from service.bundle import Tensors
from service.engine.limits import MAX_BATCH_ITEMS
from service.engine.verification.shapes import doubling
from service.manifest import Manifest

# All lengths up to ALL_LENGTHS, and all batches up to ALL_SIZES; of greater ones, this many on a logarithmic scale.
ALL_LENGTHS, ALL_SIZES = 512, 128
NUM_LONGER, NUM_LARGER = 64, 24
# The rows of the batches of each size have up to this many steps.
MAX_SHORT_STEPS = 8
# Bounds of a pool of rows: its inputs and outputs, and the rows that the reference computes together.
MAX_POOL_BYTES, MAX_POOL_ROWS = 16 << 20, 128
MAX_COMPANIONS = 2


class RowPool:
    """Rows with the outputs of the reference; any of them form a batch."""

    def __init__(self, candidate: Candidate, reference: Backend, inputs: Tensors) -> None:
        manifest = candidate.manifest
        parts = [
            reference(
                Case(name="", inputs={name: array[start : start + MAX_POOL_ROWS] for name, array in inputs.items()})
            )
            for start in range(0, len(next(iter(inputs.values()))), MAX_POOL_ROWS)
        ]
        self._inputs = inputs
        self._outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        ragged = ragged_inputs(manifest)
        outputs = {spec.name for spec in manifest.outputs if ragged and spec.row_shape[:1] == ("steps",)}
        self._has_steps = ragged | outputs
        self._has_lengths = bool(ragged)

    def compare(self, rows: Array, session: Backend, comparison: Comparison) -> None:
        """Compare a batch of these rows, at the width of the longest of them."""
        lengths = self._inputs["lengths"] if self._has_lengths else None
        width = None if lengths is None else int(lengths[rows].max())
        inputs, expected = (
            {name: array[rows, :width] if name in self._has_steps else array[rows] for name, array in arrays.items()}
            for arrays in (self._inputs, self._outputs)
        )
        size = f"a batch of {len(rows)}" if width is None else f"a batch of {len(rows)} with {width} steps"
        names = [f"row {row}" if lengths is None else f"length {lengths[rows[row]]}" for row in range(len(rows))]
        case = Case(name=size, inputs=inputs, rows=tuple(names))
        comparison.add(case, expected, session(case))


def check_lengths(candidate: Candidate) -> Coverage:
    """Every length, alone or with shorter rows, and then all rows of a pool in one batch. Raises ExportError."""
    source, manifest, rng = candidate.source, candidate.manifest, np.random.default_rng(3)
    comparison = Comparison(manifest, "every length", exact=reference_backend(source, float64=True))
    reference, session = reference_backend(source), session_backend(candidate.session)
    longest = longest_row(manifest)
    assert longest is not None
    for lengths in _pools(manifest, _lengths(candidate, longest)):
        pool = RowPool(candidate, reference, draw_rows(source, manifest, lengths, rng))
        for row in range(len(lengths)):
            companions = rng.integers(0, row + 1, rng.integers(MAX_COMPANIONS + 1))
            pool.compare(rng.permutation([row, *companions]), session, comparison)
        pool.compare(np.arange(len(lengths)), session, comparison)
    return comparison.result()


def check_axes(candidate: Candidate) -> Coverage:
    """Every free axis at its sizes, both ends included, the others at random ones. Raises ExportError."""
    source, manifest, rng = candidate.source, candidate.manifest, np.random.default_rng(10)
    reference, session = reference_backend(source), session_backend(candidate.session)
    comparison = Comparison(manifest, "every size of a free axis", exact=reference_backend(source, float64=True))
    longest, batch = longest_row(manifest), min(2, manifest.limits.max_items)
    steps = None if longest is None else min(longest, MAX_SHORT_STEPS)
    for number, (_, sizes) in enumerate(every_size(manifest, rng)):
        items = ITEMS[number % 2]
        case = draw_case(source, manifest, batch=batch, steps=steps, items=items, rng=rng, sizes=sizes)
        comparison.add(case, reference(case), session(case))
    return comparison.result()


def check_batch_sizes(candidate: Candidate) -> Coverage:
    """Batches of every size, of short rows. Raises ExportError."""
    source, manifest, rng = candidate.source, candidate.manifest, np.random.default_rng(4)
    comparison = Comparison(manifest, "every batch size", exact=reference_backend(source, float64=True))
    max_steps = min(MAX_SHORT_STEPS, longest_row(manifest) or 1)
    smallest, allowed = smallest_sizes(manifest), max_rows(candidate, smallest_sizes(manifest), max_steps)
    largest = max(ALL_SIZES, MAX_POOL_BYTES // _row_bytes(manifest, {**smallest, "steps": max_steps}))
    largest = min(MAX_BATCH_ITEMS, largest, max(manifest.limits.max_items, allowed))
    lengths = rng.integers(1, max_steps + 1, largest)
    pool = RowPool(candidate, reference_backend(source), draw_rows(source, manifest, lengths, rng, smallest))
    session = session_backend(candidate.session)
    for size in _affordable(batch_sizes(largest), allowed):
        pool.compare((rng.integers(largest) + np.arange(size)) % largest, session, comparison)
    return comparison.result()


def batch_sizes(largest: int) -> list[int]:
    """Every size up to ALL_SIZES, greater ones on a logarithmic scale, and 128, 256, ... with their neighbours."""
    neighbours = {size + offset for size in doubling(2 * ALL_SIZES, largest) for offset in (-1, 0, 1)}
    sizes = {*dense_sizes(largest, ALL_SIZES, NUM_LARGER), *neighbours}
    return sorted(size for size in sizes if 1 <= size <= largest)


def dense_sizes(largest: int, num_first: int, num_others: int) -> list[int]:
    """1, 2, 3, ... `num_first`, and then `num_others` sizes on a logarithmic scale up to the largest."""
    if largest <= num_first:
        return list(range(1, largest + 1))
    others = np.geomspace(num_first + 1, largest, num_others).round().astype(int)
    return [*range(1, num_first + 1), *sorted(set(others.tolist()))]


def _lengths(candidate: Candidate, longest: int) -> list[int]:
    """All lengths, or as many on a logarithmic scale as the effort allows."""
    lengths = dense_sizes(longest, ALL_LENGTHS, NUM_LONGER)
    allowed = max_rows(candidate, smallest_sizes(candidate.manifest), max(1, longest // 2)) // 2
    if allowed >= len(lengths):
        return lengths
    return sorted({*range(1, 1 + min(longest, allowed // 4)), *np.geomspace(1, longest, allowed).astype(int).tolist()})


def _affordable(sizes: Sequence[int], num_rows: int) -> list[int]:
    """The sizes, ascending, of as many rows in all; the largest is always one of them."""
    if sum(sizes) <= num_rows:
        return list(sizes)
    small = [size for size, total in zip(sizes, np.cumsum(sizes), strict=True) if total <= num_rows / 2]
    larger = [size for size in doubling(max(small, default=1), sizes[-1]) if size <= num_rows / 4]
    return sorted({*small, *larger, sizes[-1]})


def _pools(manifest: Manifest, lengths: Sequence[int]) -> Iterator[Array]:
    """The lengths, ascending, in parts that are within the bounds of a pool, or a single row."""
    first = 0
    for end in range(1, len(lengths) + 1):
        is_full = end == len(lengths) or end - first == MAX_POOL_ROWS
        if is_full or (end + 1 - first) * _row_bytes(manifest, {"steps": lengths[end]}) > MAX_POOL_BYTES:
            yield np.array(lengths[first:end])
            first = end


def _row_bytes(manifest: Manifest, sizes: Sizes) -> int:
    """The bytes of all inputs and outputs of a row of these sizes."""
    specs = (*manifest.inputs, *manifest.outputs)
    return sum(row_elements(spec, sizes) * spec.numpy_dtype.itemsize for spec in specs)
