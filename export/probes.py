"""Items whose answers must not depend on their batch, and the batches of strangers that they are put into.

Every batch is one that the engine can form: rows of all lengths, padded with garbage, of a model that shares batches;
of a language model, which reads each prompt alone, single steps of rows whose caches have the same capacity.

A few items are put at every place (`Probes`). Kernels take rows and steps in groups of 4, 8, 16 or more and treat what
is left over otherwise, so there are crowds too: many batches of any size, length and width, every row of which counts.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from export.candidate import Candidate
from export.cases import SOURCES, Array, Source, draw
from service.bundle import Tensors
from service.engine.generation.decoder import MIN_CACHE_CAPACITY, cache_capacity
from service.engine.sessions.session import Session
from service.engine.verification.shapes import doubling
from service.families import LanguageModel

RAGGED = frozenset({"ids", "series"})
NUM_PROBES = 4
STEPS_LEFT = 2  # tokens that a probe's cache has room for
NUM_CROWDS = 64  # of 1, 2, 3, ... steps; as many again of any width beyond
MOST_ROWS, FEWEST_ROWS = 64, 4  # a crowd has at most so many rows, and at most
MOST_STEPS = 2048  # in all of its rows, so that long models take no longer; but as many as FEWEST_ROWS it may have


@dataclass(frozen=True, kw_only=True)
class Probes:
    """`items` have one row each and are as wide as they are long; `capacity` is that of their caches."""

    candidate: Candidate
    items: tuple[Tensors, ...]
    capacity: int | None = None

    def crowd(self, guests: Mapping[int, int], batch: int, padding: float, rng: np.random.Generator) -> Tensors:
        """Strangers, and at these places the items of these numbers; `padding`: width relative to the longest item."""
        chosen = {place: self.items[number] for place, number in guests.items()}
        if self.capacity is None:
            return self._ragged(chosen, batch, padding, rng)
        return self._steps(chosen, batch, self.capacity, rng)

    def crowds(self) -> Iterator[Tensors]:
        """Batches whose rows are all guests: the same ones for a model with the same limits."""
        limits = self.candidate.manifest.limits
        rng = np.random.default_rng((limits.max_items, limits.max_steps or 0, self.capacity or 0))
        widths = _widths(limits.max_steps if self.capacity is None else None, rng)
        for steps, number in zip(widths, rng.permutation(len(widths)).tolist(), strict=True):
            batch = 1 + number % min(limits.max_items, MOST_ROWS, max(FEWEST_ROWS, MOST_STEPS // (steps or 1)))
            if self.capacity is not None:
                yield self._steps({place: self._cut(rng) for place in range(batch)}, batch, self.capacity, rng)
                continue
            run, manifest = self.candidate.run, self.candidate.manifest
            source = SOURCES[rng.integers(len(SOURCES))]
            drawn, shift = draw(run, manifest, batch=batch, steps=steps, source=source, rng=rng), rng.integers(batch)
            yield {name: np.roll(array, shift, axis=0) for name, array in drawn.inputs.items()}

    def _cut(self, rng: np.random.Generator) -> Tensors:
        """One of the items after fewer of its tokens: what a cache holds of a token does not depend on later ones."""
        item = self.items[rng.integers(len(self.items))]
        return {**item, "past_lengths": rng.integers(1, item["past_lengths"] + 1)}

    def _ragged(
        self, guests: Mapping[int, Tensors], batch: int, padding: float, rng: np.random.Generator
    ) -> dict[str, Array]:
        longest, steps = self.candidate.manifest.limits.max_steps, None
        if longest is not None:
            steps = min(longest, int(padding * max(int(guest["lengths"][0]) for guest in guests.values())))
        run, manifest = self.candidate.run, self.candidate.manifest
        crowd = draw(run, manifest, batch=batch, steps=steps, source="random", rng=rng).inputs
        for place, guest in guests.items():
            for name, array in guest.items():
                if name in RAGGED:
                    crowd[name][place, : array.shape[1]] = array[0]
                else:
                    crowd[name][place] = array[0]
        return dict(crowd)

    def _steps(
        self, guests: Mapping[int, Tensors], batch: int, capacity: int, rng: np.random.Generator
    ) -> dict[str, Array]:
        crowd = garbage(self.candidate, batch, 1, capacity, rng)
        crowd["past_lengths"] = rng.integers(1, capacity, batch)
        for place, guest in guests.items():
            past = int(guest["past_lengths"][0])
            for name, array in guest.items():
                if name.startswith("past_") and array.ndim > 1:
                    crowd[name][place, :, :past] = array[0, :, :past]
                else:
                    crowd[name][place] = array[0]
        return crowd


def probes(candidate: Candidate, session: Session, rng: np.random.Generator) -> Iterator[Probes]:
    """Of different lengths, half of them real items; a language model's at every capacity that a cache can have."""
    manifest = candidate.manifest
    longest = manifest.limits.max_steps
    if not isinstance(manifest.parameters, LanguageModel):
        yield Probes(candidate=candidate, items=tuple(_item(candidate, n, longest, rng) for n in range(NUM_PROBES)))
        return
    assert longest is not None
    for capacity in doubling(MIN_CACHE_CAPACITY, longest):
        items = (_step(candidate, session, n, capacity, rng) for n in range(NUM_PROBES))
        yield Probes(candidate=candidate, items=tuple(items), capacity=capacity)


def row_alone(crowd: Tensors, row: int) -> Tensors:
    """A row of a crowd as if it had come alone: no wider than it is long."""
    width = int(crowd["lengths"][row]) if "lengths" in crowd else None
    return {
        name: array[row : row + 1, :width] if name in RAGGED else array[row : row + 1] for name, array in crowd.items()
    }


def prompts(candidate: Candidate, capacity: int, rng: np.random.Generator) -> Iterator[tuple[Tensors, Tensors]]:
    """A prompt as the decoder reads it, in a cache that is empty and in one that holds what others left."""
    for number in range(NUM_PROBES):
        yield tuple(_prompt(candidate, number, capacity, rng, scale=scale) for scale in (0, 30))  # type: ignore[misc]


def garbage(
    candidate: Candidate, batch: int, steps: int, capacity: int, rng: np.random.Generator, *, scale: float = 30
) -> dict[str, Array]:
    """Inputs of a language model without a past, and a cache that holds noise."""
    parameters = candidate.manifest.parameters
    assert isinstance(parameters, LanguageModel)
    shape = (batch, parameters.heads, capacity, parameters.head_size)
    return {
        "ids": rng.integers(0, parameters.vocabulary, (batch, steps)),
        "past_lengths": np.zeros(batch, np.int64),
        **{
            spec.name: (scale * rng.standard_normal(shape, np.float32)).astype(np.float32)
            for spec in candidate.manifest.inputs[2:]
        },
    }


def _item(candidate: Candidate, number: int, longest: int | None, rng: np.random.Generator) -> Tensors:
    steps = None if longest is None else max(min(2, longest), longest * (number + 1) // (NUM_PROBES + 1))
    return draw(candidate.run, candidate.manifest, batch=1, steps=steps, source=_source(number), rng=rng).inputs


def _prompt(
    candidate: Candidate, number: int, capacity: int, rng: np.random.Generator, *, scale: float
) -> dict[str, Array]:
    """The same tokens for the same number and capacity."""
    own = np.random.default_rng((number, capacity))
    num_steps = max(1, (capacity - STEPS_LEFT) * (number + 1) // NUM_PROBES)
    assert cache_capacity(capacity, capacity) == capacity
    run, manifest = candidate.run, candidate.manifest
    case = draw(run, manifest, batch=1, steps=num_steps, source=_source(number), rng=own)
    return {**garbage(candidate, 1, num_steps, capacity, rng, scale=scale), "ids": case.inputs["ids"]}


def _step(
    candidate: Candidate, session: Session, number: int, capacity: int, rng: np.random.Generator
) -> dict[str, Array]:
    """The first step after a prompt."""
    prompt = _prompt(candidate, number, capacity, rng, scale=0)
    answer, num_steps = session.run(prompt), prompt["ids"].shape[1]
    step = {**prompt, "ids": prompt["ids"][:, -1:], "past_lengths": np.array([num_steps])}
    for spec in candidate.manifest.inputs[2:]:
        step[spec.name][:, :, :num_steps] = answer[spec.name.replace("past_", "new_")]
    return step


def _source(number: int) -> Source:
    return "test" if number % 2 else "random"


def _widths(longest: int | None, rng: np.random.Generator) -> list[int | None]:
    """Of the crowds; those beyond the first are spread evenly over orders of magnitude."""
    if longest is None:
        return [None] * NUM_CROWDS
    again = [1 + number % longest for number in range(2 * NUM_CROWDS)]
    if longest <= NUM_CROWDS:
        return list(again)
    beyond = np.exp(rng.uniform(np.log(NUM_CROWDS + 1), np.log(longest + 1), NUM_CROWDS)).astype(int)
    return [*again[:NUM_CROWDS], *beyond.tolist()]
