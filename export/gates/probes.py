"""Probes, whose outputs must not depend on their batch, and the mixed batches that they are placed in.

Every batch is one that the engine can form. For a model that batches across requests, it has rows of all lengths,
padded with garbage; all rows have the same size of every other free axis. A language model reads each prompt alone, so
its batches are single steps of rows whose caches have the same capacity.

A few probes are placed at every position of a batch (`ProbeGroup.mixed_batch`). Half of its other rows are outliers:
all their numbers are at an end of the domain. Kernels process rows and steps in groups of 4, 8, 16 or more and treat
the remainder differently, so there are also many random batches of any size, length and width, in which every row is a
probe (`ProbeGroup.random_batches`).
"""

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from export.candidate import Candidate
from export.gates.cases import ITEMS, Array, Items, draw_case, ragged_inputs
from export.gates.inputs.effort import UNBOUNDED, max_rows
from export.gates.inputs.sizes import Sizes, draw_sizes, grid_sizes, longest_row, smallest_sizes
from export.gates.inputs.values import at_the_ends
from service.bundle import Tensors
from service.contract.heads import LanguageModelHead
from service.engine.generation.kv_cache import MIN_CACHE_CAPACITY, PREFILL_CHUNK, chunk_capacity, read_prompt
from service.engine.sessions.session import Session
from service.engine.verification.shapes import doubling

NUM_PROBES = 4
# Items of large batches have at most this many steps.
SHORT_STEPS = 8
# The cache of a probe has room for this many more tokens.
FREE_SLOTS = 2
# The widths are 1, 2, 3 and so on, then as many again from all greater widths.
NUM_RANDOM_BATCHES = 64
# A random batch has at most MAX_ROWS rows. All its rows together have at most MAX_TOTAL_STEPS steps, so that long items
# take no longer to check, but SMALL_BATCH rows are always allowed.
MAX_ROWS, MAX_TOTAL_STEPS, SMALL_BATCH = 64, 2048, 4


@dataclass(frozen=True, kw_only=True)
class ProbeGroup:
    """Probes of one row each, without padding. `capacity` is that of their caches, None for a model without one.

    `sizes` are those of the free axes of every probe.
    """

    candidate: Candidate
    probes: tuple[Tensors, ...]
    capacity: int | None = None
    sizes: Sizes = field(default_factory=dict)

    def mixed_batch(
        self, positions: Mapping[int, int], batch: int, padding: float, rng: np.random.Generator
    ) -> Tensors:
        """A batch of random rows, with probes at some positions.

        `positions` maps a position to the number of its probe. `padding` is the width of the batch, relative to the
        longest probe in it.
        """
        placed = {position: self.probes[number] for position, number in positions.items()}
        if self.capacity is None:
            return self._mixed_items(placed, batch, padding, rng)
        return self._mixed_steps(placed, batch, self.capacity, rng)

    def shortened(self) -> "ProbeGroup":
        """The group with items of at most SHORT_STEPS steps, for batches of many rows."""
        ragged = ragged_inputs(self.candidate.manifest)
        if self.capacity is not None or not ragged:
            return self
        probes = []
        for number, probe in enumerate(self.probes):
            steps = min(SHORT_STEPS - number, int(probe["lengths"][0]))
            cut = {name: array[:, :steps] if name in ragged else array for name, array in probe.items()}
            probes.append({**cut, "lengths": np.array([steps])})
        return replace(self, probes=tuple(probes))

    def random_batches(self) -> Iterator[Tensors]:
        """Batches in which every row is a probe. Models with the same limits get the same sizes and widths."""
        limits = self.candidate.manifest.limits
        rng = np.random.default_rng((limits.max_items, limits.max_steps or 0, self.capacity or 0))
        widths = _batch_widths(longest_row(self.candidate.manifest) if self.capacity is None else None, rng)
        for steps, number in zip(widths, rng.permutation(len(widths)).tolist(), strict=True):
            sizes = draw_sizes(self.candidate.manifest, rng)
            affordable = max_rows(self.candidate, sizes, steps) // NUM_RANDOM_BATCHES
            largest = max(SMALL_BATCH, min(MAX_TOTAL_STEPS // (steps or 1), affordable))
            batch = 1 + number % min(limits.max_items, MAX_ROWS, largest)
            if self.capacity is not None:
                probes = {position: self._shorter_probe(rng) for position in range(batch)}
                yield self._mixed_steps(probes, batch, self.capacity, rng)
                continue
            origin = ITEMS[rng.integers(len(ITEMS))]
            items = self._draw(batch, steps, origin, rng, sizes)
            # draw_case makes the first row the longest; rolling puts it at any position.
            shift = rng.integers(batch)
            yield {name: np.roll(array, shift, axis=0) for name, array in items.items()}

    def _draw(self, batch: int, steps: int | None, items: Items, rng: np.random.Generator, sizes: Sizes) -> Tensors:
        source, manifest = self.candidate.source, self.candidate.manifest
        return draw_case(source, manifest, batch=batch, steps=steps, items=items, rng=rng, sizes=sizes).inputs

    def _shorter_probe(self, rng: np.random.Generator) -> Tensors:
        """A probe after fewer of its tokens. Its cache stays valid: an entry does not depend on later tokens."""
        probe = self.probes[rng.integers(len(self.probes))]
        return {**probe, "past_lengths": rng.integers(1, probe["past_lengths"] + 1)}

    def _mixed_items(
        self, probes: Mapping[int, Tensors], batch: int, padding: float, rng: np.random.Generator
    ) -> dict[str, Array]:
        longest, steps = longest_row(self.candidate.manifest), None
        ragged = ragged_inputs(self.candidate.manifest)
        if longest is not None:
            steps = min(longest, int(padding * max(int(probe["lengths"][0]) for probe in probes.values())))
        inputs = dict(self._draw(batch, steps, "random", rng, self.sizes))
        # Ordinary rows seldom show that the largest number of a batch changes the others, or a branch that few take.
        outliers = [row for row in range(batch) if row not in probes][::2]
        for spec in self.candidate.manifest.inputs:
            inputs[spec.name][outliers] = at_the_ends(self.candidate.manifest, spec, inputs[spec.name][outliers])
        for position, probe in probes.items():
            for name, array in probe.items():
                if name in ragged:
                    inputs[name][position, : array.shape[1]] = array[0]
                else:
                    inputs[name][position] = array[0]
        return inputs

    def _mixed_steps(
        self, probes: Mapping[int, Tensors], batch: int, capacity: int, rng: np.random.Generator
    ) -> dict[str, Array]:
        inputs = noise_inputs(self.candidate, batch, 1, capacity, rng)
        inputs["past_lengths"] = rng.integers(1, capacity, batch)
        for position, probe in probes.items():
            past = int(probe["past_lengths"][0])
            for name, array in probe.items():
                if name.startswith("past_") and array.ndim > 1:
                    inputs[name][position, :, :past] = array[0, :, :past]
                else:
                    inputs[name][position] = array[0]
        return inputs


def probe_groups(candidate: Candidate, session: Session, rng: np.random.Generator) -> Iterator[ProbeGroup]:
    """One group with probes of different lengths, half of them test items.

    A model with free axes has a group for the smallest sizes, one for the sizes between, and one for the largest, as
    far as they can be computed; a language model has one for each capacity.
    """
    manifest = candidate.manifest
    longest = manifest.limits.max_steps
    if not isinstance(manifest.head, LanguageModelHead):
        for sizes in _probe_sizes(candidate):
            probes = (_item_probe(candidate, number, sizes, rng) for number in range(NUM_PROBES))
            yield ProbeGroup(candidate=candidate, probes=tuple(probes), sizes=sizes)
        return
    assert longest is not None
    for capacity in doubling(MIN_CACHE_CAPACITY, longest):
        steps = tuple(_step_probe(candidate, session, number, capacity, rng) for number in range(NUM_PROBES))
        yield ProbeGroup(candidate=candidate, probes=steps, capacity=capacity)


def single_row(inputs: Tensors, row: int, ragged: Container[str]) -> Tensors:
    """One row of a batch as a request of its own, without padding. `ragged` names the inputs with steps."""
    width = int(inputs["lengths"][row]) if "lengths" in inputs and ragged else None
    return {
        name: array[row : row + 1, :width] if name in ragged else array[row : row + 1] for name, array in inputs.items()
    }


def affordable_rows(candidate: Candidate, sizes: Sizes) -> int:
    """The number of rows that the batches of one group of probes may have in all."""
    longest = longest_row(candidate.manifest)
    return max_rows(candidate, sizes, None if longest is None else max(1, longest // 2))


def _probe_sizes(candidate: Candidate) -> list[Sizes]:
    grid = grid_sizes(candidate.manifest)
    smallest, *others = [grid[i] for i in sorted({0, len(grid) // 3, 2 * len(grid) // 3})]
    allowed = max_rows(candidate, smallest_sizes(candidate.manifest))
    # Larger items than a few of which are affordable are left to the random batches.
    return [smallest, *(sizes for sizes in others if 4 * max_rows(candidate, sizes) >= min(allowed, UNBOUNDED))]


def chunk_pairs(
    candidate: Candidate, session: Session, capacity: int, rng: np.random.Generator
) -> Iterator[tuple[Tensors, Tensors]]:
    """Chunks of prompts at this capacity: each with zeros and with garbage in the unused slots of its cache."""
    context = longest_row(candidate.manifest) or capacity
    starts = [first for first in range(0, context, PREFILL_CHUNK) if chunk_capacity(first, context) == capacity]
    for number, first in enumerate(starts[:: max(1, len(starts) // NUM_PROBES)]):
        size = min(PREFILL_CHUNK, context - first)
        ids_T = _prompt_ids(candidate, number, capacity, first + size)
        parts = read_prompt(session, ids_T[:first]).parts
        zeros, noise = (
            {
                **noise_inputs(candidate, 1, size, capacity, rng, scale=scale),
                "ids": ids_T[None, first:],
                "past_lengths": np.array([first]),
            }
            for scale in (0, 30)
        )
        for inputs in (zeros, noise):
            for part, cache_1HCK in parts.items():
                inputs[f"past_{part}"][:, :, :first] = cache_1HCK[:, :, :first]
        yield zeros, noise


def noise_inputs(
    candidate: Candidate, batch: int, steps: int, capacity: int, rng: np.random.Generator, *, scale: float = 30
) -> dict[str, Array]:
    """Inputs of a language model: random tokens, an empty past, and unused cache slots with noise of this scale."""
    head = candidate.manifest.head
    assert isinstance(head, LanguageModelHead)
    shape = (batch, head.heads, capacity, head.head_size)
    return {
        "ids": rng.integers(0, candidate.source.vocabulary, (batch, steps)),
        "past_lengths": np.zeros(batch, np.int64),
        **{
            spec.name: (scale * rng.standard_normal(shape, np.float32)).astype(np.float32)
            for spec in candidate.manifest.inputs[2:]
        },
    }


def _item_probe(candidate: Candidate, number: int, sizes: Sizes, rng: np.random.Generator) -> Tensors:
    source, manifest, longest = candidate.source, candidate.manifest, longest_row(candidate.manifest)
    steps = None if longest is None else max(min(2, longest), longest * (number + 1) // (NUM_PROBES + 1))
    return draw_case(source, manifest, batch=1, steps=steps, items=_items(number), rng=rng, sizes=sizes).inputs


def _prompt_ids(candidate: Candidate, number: int, capacity: int, num_tokens: int) -> Array:
    """Tokens of a prompt. The same number and capacity give the same tokens."""
    rng = np.random.default_rng((number, capacity))
    source, manifest = candidate.source, candidate.manifest
    case = draw_case(source, manifest, batch=1, steps=num_tokens, items=_items(number), rng=rng)
    return case.inputs["ids"][0]


def _step_probe(
    candidate: Candidate, session: Session, number: int, capacity: int, rng: np.random.Generator
) -> dict[str, Array]:
    """The first decoding step after a prompt."""
    num_steps = max(1, (capacity - FREE_SLOTS) * (number + 1) // NUM_PROBES)
    ids_T = _prompt_ids(candidate, number, capacity, num_steps)
    step = {
        **noise_inputs(candidate, 1, 1, capacity, rng, scale=0),
        "ids": ids_T[None, -1:],
        "past_lengths": np.array([num_steps]),
    }
    for part, cache_1HCK in read_prompt(session, ids_T).parts.items():
        step[f"past_{part}"][:, :, :num_steps] = cache_1HCK[:, :, :num_steps]
    return step


def _items(number: int) -> Items:
    return "test" if number % 2 else "random"


def _batch_widths(longest: int | None, rng: np.random.Generator) -> list[int | None]:
    """The widths of the random batches. Widths above NUM_RANDOM_BATCHES are spread evenly on a logarithmic scale."""
    if longest is None:
        return [None] * NUM_RANDOM_BATCHES
    if longest <= NUM_RANDOM_BATCHES:
        return [1 + number % longest for number in range(2 * NUM_RANDOM_BATCHES)]
    bounds = np.log(NUM_RANDOM_BATCHES + 1), np.log(longest + 1)
    wider = np.exp(rng.uniform(*bounds, NUM_RANDOM_BATCHES)).astype(int)
    return [*range(1, NUM_RANDOM_BATCHES + 1), *wider.tolist()]
