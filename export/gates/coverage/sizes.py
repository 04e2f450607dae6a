"""Every length and every batch size, once each, against PyTorch.

A graph may be right at the sizes of the grid and differ at one size between them. Every length runs at a width of
exactly that length, and every batch size with as many different rows. PyTorch computes the rows in ragged batches,
because that takes less time than one run a length.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from export.candidate import Candidate
from export.gates.backends import Backend, reference_backend, session_backend
from export.gates.cases import RAGGED, Array, Case, draw_rows
from export.gates.coverage.comparison import Comparison, Coverage
from export.gates.effort import sampled, scaled
from service.bundle import Tensors
from service.engine.limits import MAX_BATCH_ITEMS
from service.engine.verification.shapes import doubling
from service.manifest import Manifest

# All lengths up to ALL_LENGTHS, and all batches up to ALL_SIZES; of greater ones, this many on a logarithmic scale.
ALL_LENGTHS, ALL_SIZES = 512, 128
NUM_LONGER, NUM_LARGER = 64, 24
# A large model is tried at this many of the sizes at least.
MIN_SIZES = 24
# The rows of the batches of each size have up to this many steps.
MAX_SHORT_STEPS = 8
# Bounds of a pool of rows: its inputs and outputs, and the rows that PyTorch computes together.
MAX_POOL_BYTES, MAX_POOL_ROWS = 16 << 20, 128
MAX_COMPANIONS = 2


class RowPool:
    """Rows with PyTorch's outputs; any of them form a batch."""

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
        self._has_steps = {spec.name for spec in manifest.outputs if spec.shape[1:2] == ("steps",)} | set(RAGGED)

    def compare(self, rows: Array, session: Backend, comparison: Comparison) -> None:
        """Compare a batch of these rows, at the width of the longest of them."""
        lengths = self._inputs.get("lengths")
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
    assert manifest.limits.max_steps is not None
    for lengths in _pools(manifest, dense_sizes(manifest.limits.max_steps, ALL_LENGTHS, NUM_LONGER)):
        pool = RowPool(candidate, reference, draw_rows(source, manifest, lengths, rng))
        for row in range(len(lengths)):
            companions = rng.integers(0, row + 1, rng.integers(MAX_COMPANIONS + 1))
            pool.compare(rng.permutation([row, *companions]), session, comparison)
        pool.compare(np.arange(len(lengths)), session, comparison)
    return comparison.result()


def check_batch_sizes(candidate: Candidate) -> Coverage:
    """Batches of every size, of short rows. Raises ExportError."""
    source, manifest, rng = candidate.source, candidate.manifest, np.random.default_rng(4)
    comparison = Comparison(manifest, "every batch size", exact=reference_backend(source, float64=True))
    max_steps = min(MAX_SHORT_STEPS, manifest.limits.max_steps or 1)
    largest = min(MAX_BATCH_ITEMS, max(ALL_SIZES, MAX_POOL_BYTES // _row_bytes(manifest, max_steps)))
    largest = scaled(candidate, largest, least=ALL_SIZES)
    lengths = rng.integers(1, max_steps + 1, largest)
    pool = RowPool(candidate, reference_backend(source), draw_rows(source, manifest, lengths, rng))
    session = session_backend(candidate.session)
    for size in sampled(candidate, batch_sizes(largest), least=MIN_SIZES):
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


def _pools(manifest: Manifest, lengths: Sequence[int]) -> Iterator[Array]:
    """The lengths, ascending, in parts that are within the bounds of a pool, or a single row."""
    first = 0
    for end in range(1, len(lengths) + 1):
        is_full = end == len(lengths) or end - first == MAX_POOL_ROWS
        if is_full or (end + 1 - first) * _row_bytes(manifest, lengths[end]) > MAX_POOL_BYTES:
            yield np.array(lengths[first:end])
            first = end


def _row_bytes(manifest: Manifest, steps: int) -> int:
    """The bytes of all inputs and outputs of a row of these steps."""
    total = 0
    for spec in (*manifest.inputs, *manifest.outputs):
        sizes = [steps if isinstance(axis, str) else axis for axis in spec.shape[1:]]
        total += int(np.prod(sizes)) * np.dtype(spec.dtype).itemsize
    return total
