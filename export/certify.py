"""Gate 4, invariance: whether an item's answer depends on the items that happen to share its batch.

Probes are answered alone, then again in batches of strangers, at many positions, under padding that is garbage. What is
reported is measured: `bitwise` where not one bit ever differed, otherwise the largest difference.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from export.answers import by_session
from export.candidate import Candidate, ExportError
from export.cases import Array, Case, Source, draw
from service.bundle import Invariance, Tolerance
from service.engine.parity import compare

NUM_PROBES = 4
BATCHES = (2, 4, 8, 32)
PADDINGS = (1.0, 1.5)  # width of a batch, relative to its longest probe


@dataclass(frozen=True, kw_only=True)
class Certificate:
    invariance: Invariance
    worst: dict[str, float]  # of each output
    equal: int  # comparisons without a differing bit
    compared: int


def certify(candidate: Candidate) -> Certificate:
    """Measure. Raises ExportError where neighbours change an answer by more than the tolerance."""
    rng = np.random.default_rng(1)
    answer = by_session(candidate.session)
    probes = [_probe(candidate, number, rng) for number in range(NUM_PROBES)]
    alone = [answer(probe) for probe in probes]
    worst = {spec.name: 0.0 for spec in candidate.manifest.outputs}
    equal = compared = 0
    for batch in BATCHES:
        num_guests = min(batch, NUM_PROBES)
        for shift in range(min(batch, 8)):  # with guests batch / NUM_PROBES apart: some guest at every place
            guests = {(shift + i * max(1, batch // NUM_PROBES)) % batch: i for i in range(num_guests)}
            padding = PADDINGS[shift % len(PADDINGS)]
            crowd = _crowd(candidate, {place: probes[i] for place, i in guests.items()}, batch, padding, rng)
            answers = answer(crowd)
            for place, i in guests.items():
                for name, expected in alone[i].items():
                    given = _cut(answers[name][place : place + 1], expected)
                    where = f"output {name!r} of an item changes at position {place} of {crowd.name}"
                    tolerance = candidate.manifest.tolerance[name]
                    worst[name] = max(worst[name], _difference(expected, given, tolerance, where))
                    equal += expected.tobytes() == given.tobytes()
                    compared += 1
    how = (
        f"{NUM_PROBES} items alone and in batches of {', '.join(map(str, BATCHES))} with random others, "
        "at every position, padded with garbage; one thread on the CPU"
    )
    level: Literal["bitwise", "tolerance"] = "bitwise" if equal == compared else "tolerance"
    invariance = Invariance(level=level, measured=max(worst.values()), how=how)
    return Certificate(invariance=invariance, worst=worst, equal=equal, compared=compared)


def _probe(candidate: Candidate, number: int, rng: np.random.Generator) -> Case:
    """One item alone, its batch as wide as it is long; probes are of different lengths, half of them real items."""
    longest = candidate.manifest.limits.max_steps
    steps = None if longest is None else max(2, longest * (number + 1) // (NUM_PROBES + 1))
    source: Source = "test" if number % 2 else "random"
    return _decoded(draw(candidate.run, candidate.manifest, batch=1, steps=steps, source=source, rng=rng))


def _crowd(
    candidate: Candidate, guests: Mapping[int, Case], batch: int, padding: float, rng: np.random.Generator
) -> Case:
    """A batch of strangers, some of whose places are taken by the guests."""
    longest, steps = candidate.manifest.limits.max_steps, None
    if longest is not None:
        steps = min(longest, int(padding * max(int(guest.inputs["lengths"][0]) for guest in guests.values())))
    crowd = draw(candidate.run, candidate.manifest, batch=batch, steps=steps, source="random", rng=rng)
    for place, guest in guests.items():
        for name, array in guest.inputs.items():
            if name in {"ids", "series"}:
                crowd.inputs[name][place, : array.shape[1]] = array[0]
            else:
                crowd.inputs[name][place] = array[0]
    return _decoded(crowd)


def _decoded(case: Case) -> Case:
    """A language model is asked as it serves: a prefill of all but the last token, then one decoding step."""
    if case.chunks is None:
        return case
    lengths = np.maximum(case.inputs["lengths"], 2)
    inputs = {**case.inputs, "lengths": lengths}
    return replace(case, inputs=inputs, chunks=np.stack([lengths - 1, np.ones_like(lengths)]))


def _cut(given: Array, expected: Array) -> Array:
    """Without the steps that only the padding of a batch added."""
    return np.ascontiguousarray(given[tuple(slice(size) for size in expected.shape)])


def _difference(expected: Array, given: Array, tolerance: Tolerance, where: str) -> float:
    difference = compare(expected, given, atol=tolerance.atol, rtol=tolerance.rtol)
    if not difference.within:
        raise ExportError("invariance", f"{where} by {difference.worst:.3g}: {difference.detail}")
    return difference.worst
