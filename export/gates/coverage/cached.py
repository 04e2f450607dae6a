"""Every prompt length, past length and cache size of a language model, once each, against PyTorch.

One full forward pass of PyTorch gives the logits, keys and values of every prefix of a row, because the model is
causal. The graph then computes the same values as the service runs it: chunks of prompts and single steps in batches,
at exactly the capacities of the decode loop, and as clients send them: prompts of any length, and chunks on a cache
without a free slot. All unused slots hold garbage.

Shapes: B batch, S new steps, P slots of the past, T steps of a row.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np

from export.candidate import Candidate
from export.gates.backends import reference_backend
from export.gates.cases import Array, Case, draw_rows, single_chunk
from export.gates.coverage.comparison import Comparison, Coverage
from export.gates.coverage.sizes import ALL_LENGTHS, ALL_SIZES, NUM_LONGER, batch_sizes, dense_sizes
from export.gates.inputs.effort import max_rows, sampled
from service.engine.generation.kv_cache import MIN_CACHE_CAPACITY, PREFILL_CHUNK, chunk_capacity
from service.engine.limits import MAX_BATCH_ITEMS
from service.engine.verification.shapes import doubling

# Rows with PyTorch's outputs: half random, half test items.
MAX_ROWS, MAX_POOL_BYTES = 16, 64 << 20
# The caches of one batch.
MAX_BATCH_BYTES = 64 << 20
# Chunks have up to this many tokens.
MAX_CHUNK = 17
NOISE_SCALE = 30


class CachedRows:
    """Rows of the whole context with PyTorch's outputs, from which prompts, steps and chunks are cut."""

    def __init__(self, candidate: Candidate) -> None:
        manifest, rng = candidate.manifest, np.random.default_rng(5)
        assert manifest.limits.max_steps is not None
        self.context = manifest.limits.max_steps
        self._candidate, self._rng = candidate, rng
        self._caches = [spec.name.removeprefix("past_") for spec in manifest.inputs[2:]]
        num_rows = max(2, min(MAX_ROWS, MAX_POOL_BYTES // (self.context * self._step_bytes())))
        inputs = draw_rows(candidate.source, manifest, np.full(num_rows, self.context), rng)
        self._ids_BT = inputs["ids"]
        case = Case(name="", inputs=inputs, chunks=single_chunk(inputs["lengths"]))
        self._outputs = reference_backend(candidate.source)(case)

    def compare(self, comparison: Comparison, past_B: Array, num_steps: int, num_slots: int) -> None:
        """Compare `num_steps` new tokens of as many rows, each after its past, with `num_slots` slots of cache."""
        rows_B = self._rng.integers(len(self._ids_BT), size=len(past_B))
        steps_BS = past_B[:, None] + np.arange(num_steps)
        inputs: dict[str, Array] = {"ids": self._ids_BT[rows_B[:, None], steps_BS], "past_lengths": past_B}
        for part in self._caches:
            inputs[f"past_{part}"] = self._cache(part, rows_B, past_B, num_slots)
        expected = {"logits": self._outputs["logits"][rows_B[:, None], steps_BS]}
        for part in self._caches:
            # The index of two arrays with a slice between them puts the heads last: [B, S, H, K].
            values_BSHK = self._outputs[f"new_{part}"][rows_B[:, None], :, steps_BS]
            expected[f"new_{part}"] = values_BSHK.transpose(0, 2, 1, 3)
        size = f"{num_steps} tokens in a batch of {len(past_B)} with {num_slots} slots"
        rows = tuple(f"after {past} tokens" for past in past_B)
        comparison.add(Case(name=size, inputs=inputs, rows=rows), expected, self._candidate.session.run(inputs))

    def slot_bytes(self) -> int:
        """The bytes of the caches of a row for one slot."""
        return sum(self._outputs[f"new_{part}"][0, :, 0].nbytes for part in self._caches)

    def _cache(self, part: str, rows_B: Array, past_B: Array, num_slots: int) -> Array:
        """Garbage with the past of the rows."""
        new_BHTK = self._outputs[f"new_{part}"]
        shape = (1, new_BHTK.shape[1], num_slots, new_BHTK.shape[3])
        noise = NOISE_SCALE * self._rng.standard_normal(shape, np.float32)
        is_past_BP = np.arange(num_slots) < past_B[:, None]
        return np.where(is_past_BP[:, None, :, None], new_BHTK[rows_B, :, :num_slots], noise)

    def _step_bytes(self) -> int:
        specs = self._candidate.manifest.outputs
        return sum(int(np.prod([axis for axis in spec.shape if isinstance(axis, int)])) * 4 for spec in specs)


def check_cached(candidate: Candidate) -> tuple[Coverage, ...]:
    """Prompts, steps, batch sizes and chunks. Raises ExportError."""
    rows = CachedRows(candidate)
    groups = {
        "every prompt length at every capacity": sampled(partial(_prompts, rows), _num_prompts(candidate, rows)),
        "every chunk of a prompt": _prompt_chunks(rows),
        "every past length at every capacity": _steps(rows, candidate.manifest.limits.max_items),
        "every batch size": _batches(rows),
        "every size of the past": _chunks(rows),
    }
    results = []
    for name, batches in groups.items():
        comparison = Comparison(candidate.manifest, name)
        for past_B, num_steps, num_slots in batches:
            rows.compare(comparison, np.asarray(past_B, np.int64), num_steps, num_slots)
        results.append(comparison.result())
    return tuple(results)


def _num_prompts(candidate: Candidate, rows: CachedRows) -> int:
    return max_rows(candidate, {}, max(1, rows.context // 2))


# The past of each row, the number of new steps, and the slots of the cache.
Batches = Iterator[tuple[Array, int, int]]


def _prompts(rows: CachedRows) -> Batches:
    for capacity in doubling(MIN_CACHE_CAPACITY, rows.context):
        for steps in dense_sizes(capacity, ALL_LENGTHS, NUM_LONGER):
            yield np.zeros(1), steps, capacity
    # A client that sends tensors may have no cache at all.
    for steps in dense_sizes(rows.context, ALL_SIZES, NUM_LONGER):
        yield np.zeros(1), steps, 0


def _prompt_chunks(rows: CachedRows) -> Batches:
    """As the decode loop reads prompts, at exactly its capacities."""
    for first in range(0, rows.context, PREFILL_CHUNK):
        size = min(PREFILL_CHUNK, rows.context - first)
        yield np.array([first]), size, chunk_capacity(first, rows.context)


def _steps(rows: CachedRows, max_items: int) -> Batches:
    """Single steps: the past lengths of a batch differ, and its size grows with the batches."""
    for capacity in doubling(MIN_CACHE_CAPACITY, rows.context):
        pasts = np.array([length - 1 for length in dense_sizes(capacity, ALL_LENGTHS, NUM_LONGER)])
        first, size = 0, 0
        while first < 2 * len(pasts):
            size = size % max_items + 1
            yield pasts[(first + np.arange(size)) * 7 % len(pasts)], 1, capacity
            first += size


def _batches(rows: CachedRows) -> Batches:
    capacity = doubling(MIN_CACHE_CAPACITY, rows.context)[0]
    largest = max(ALL_SIZES, min(MAX_BATCH_ITEMS, MAX_BATCH_BYTES // (capacity * rows.slot_bytes())))
    for size in batch_sizes(largest):
        yield np.arange(size) % (capacity - 1) + 1, 1, capacity


def _chunks(rows: CachedRows) -> Batches:
    for past in [length - 1 for length in dense_sizes(rows.context, ALL_LENGTHS, NUM_LONGER)]:
        steps = min(1 + past % MAX_CHUNK, rows.context - past)
        yield np.array([past, past // 2]), steps, past
