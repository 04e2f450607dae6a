"""Items whose answers must not depend on their batch, and the batches of strangers that they are put into.

Every batch is one that the engine can form: rows of all lengths, padded with garbage, of a model that shares batches;
of a language model, which reads each prompt alone, single steps of rows whose caches have the same capacity.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from export.candidate import Candidate
from export.cases import Array, Source, draw
from service.bundle import LanguageModel, Tensors
from service.engine.decoder import cache_capacity
from service.engine.session import Session
from service.engine.shapes import FIRST_CAPACITY, doubling

NUM_PROBES = 4
STEPS_LEFT = 2  # tokens that a probe's cache has room for


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
                if name in {"ids", "series"}:
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
    for capacity in doubling(FIRST_CAPACITY, longest):
        items = (_step(candidate, session, n, capacity, rng) for n in range(NUM_PROBES))
        yield Probes(candidate=candidate, items=tuple(items), capacity=capacity)


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
