"""Gate 4, invariance: whether an item's answer depends on the items that happen to share its batch.

Items are answered alone, then again in batches of strangers, at every position, under padding that is garbage, by the
session that serves; then every row of many batches of any size, length and width. The cheapest strategy under which not
one bit ever differs is kept: `bitwise`. Where none is, the level is `tolerance`, with the largest difference, and no
strategy is paid for.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from export.candidate import Candidate, ExportError
from export.cases import Array
from export.probes import NUM_PROBES, Probes, probes, prompts, row_alone
from service.bundle import GoldenCase, Tensors
from service.engine.sessions.session import Session
from service.engine.verification.batch_invariance import find_mismatches, unpad
from service.engine.verification.parity import compare
from service.engine.verification.shapes import doubling, doubling_with_midpoints
from service.families import LanguageModel
from service.manifest import Invariance

SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 31, 32)  # and the largest
PADDINGS = (1.0, 1.5, 8.0)  # width of a batch, relative to its longest probe
FIRST_BATCH, LAST_BATCH = 4, 32
FIRST_LENGTH = 8


@dataclass(frozen=True, kw_only=True)
class Certificate:
    invariance: Invariance
    worst: dict[str, float]  # of each output
    equal: int  # comparisons without a differing bit
    compared: int


@dataclass(frozen=True, kw_only=True)
class _Comparison:
    """An output of an item alone, and in a batch."""

    output: str
    where: str
    alone: Array
    batched: Array

    @property
    def is_equal(self) -> bool:
        return self.alone.tobytes() == self.batched.tobytes()


def certify(candidate: Candidate, golden: Sequence[GoldenCase] = ()) -> Certificate:
    """Measure. Raises ExportError where neighbours change an answer by more than the tolerance.

    The golden cases are what the certificate is held to at load, so a strategy must hold for them too.
    """
    cases = dict(enumerate(golden))
    plain = _measure(candidate, Invariance(level="tolerance", measured=0, how=_how(candidate)))
    moved = [move.difference for move in find_mismatches(candidate.session, cases)]
    if plain.invariance.level == "bitwise" and not moved:
        return plain
    for invariance in _strategies(candidate):
        served = candidate.with_invariance(invariance)
        if (compared := _all_equal(served)) and not any(find_mismatches(served.session, cases)):
            found = invariance.model_copy(update={"level": "bitwise"})
            return Certificate(
                invariance=found, worst=dict.fromkeys(plain.worst, 0.0), equal=compared, compared=compared
            )
    measured = max([plain.invariance.measured, *moved])
    return replace(plain, invariance=plain.invariance.model_copy(update={"level": "tolerance", "measured": measured}))


def _strategies(candidate: Candidate) -> Iterator[Invariance]:
    """In order of cost, the cheapest first."""
    limits, how = candidate.manifest.limits, _how(candidate)
    yield Invariance(level="tolerance", measured=0, how=how, strategy="minimum-batch-2")
    sizes = doubling(FIRST_BATCH, min(LAST_BATCH, limits.max_items))
    yield Invariance(level="tolerance", measured=0, how=how, strategy="batch-buckets", bounds=sizes)
    if limits.max_steps is not None and "lengths" in {spec.name for spec in candidate.manifest.inputs}:
        lengths = doubling_with_midpoints(FIRST_LENGTH, limits.max_steps)
        yield Invariance(level="tolerance", measured=0, how=how, strategy="length-buckets", bounds=lengths)


def _measure(candidate: Candidate, invariance: Invariance) -> Certificate:
    worst = {spec.name: 0.0 for spec in candidate.manifest.outputs}
    equal = compared = 0
    for comparison in _comparisons(candidate.with_invariance(invariance)):
        compared += 1
        equal += comparison.is_equal
        worst[comparison.output] = max(worst[comparison.output], _difference(candidate, comparison))
    found = {"level": "bitwise" if equal == compared else "tolerance", "measured": max(worst.values())}
    return Certificate(invariance=invariance.model_copy(update=found), worst=worst, equal=equal, compared=compared)


def _all_equal(candidate: Candidate) -> int:
    """How many comparisons there are; 0 as soon as one differs."""
    compared = 0
    for comparison in _comparisons(candidate):
        if not comparison.is_equal:
            return 0
        compared += 1
    return compared


def _comparisons(candidate: Candidate) -> Iterator[_Comparison]:
    rng, session = np.random.default_rng(1), candidate.session
    for group in probes(candidate, session, rng):
        if group.capacity is not None:
            yield from _read(candidate, session, group.capacity, rng)
        yield from _batched(group, session, candidate.manifest.limits.max_items, rng)
        yield from _crowded(group, session)


def _read(candidate: Candidate, session: Session, capacity: int, rng: np.random.Generator) -> Iterator[_Comparison]:
    for empty, used in prompts(candidate, capacity, rng):
        where = f"a prompt of {empty['ids'].shape[1]} tokens in a used cache of {capacity}"
        yield from _compared(session.run(empty), session.run(used), where)


def _batched(group: Probes, session: Session, max_items: int, rng: np.random.Generator) -> Iterator[_Comparison]:
    alone = [session.run(item) for item in group.items]
    for batch in sorted({size for size in SIZES if size <= max_items} | {max_items}):
        num_guests = min(batch, NUM_PROBES)
        stride = max(1, batch // NUM_PROBES)
        rounds = NUM_PROBES if batch == 1 else batch if batch <= 2 * NUM_PROBES else -(-batch // num_guests)
        for shift in range(rounds):  # some guest at every place
            guests = {(shift + i * stride) % batch: (i + shift) % NUM_PROBES for i in range(num_guests)}
            answers = session.run(group.crowd(guests, batch, PADDINGS[shift % len(PADDINGS)], rng))
            for place, number in guests.items():
                row = {name: value[place : place + 1] for name, value in answers.items()}
                cache = "" if group.capacity is None else f", caches of {group.capacity}"
                yield from _compared(alone[number], row, f"position {place} of a batch of {batch}{cache}")


def _crowded(group: Probes, session: Session) -> Iterator[_Comparison]:
    for crowd in group.crowds():
        answers, batch = session.run(crowd), len(next(iter(crowd.values())))
        for place in range(batch):
            item = row_alone(crowd, place)
            row = {name: value[place : place + 1] for name, value in answers.items()}
            where = f"position {place} of a batch of {batch}, inputs {_axes(item)} alone and {_axes(crowd)} there"
            yield from _compared(session.run(item), row, where)


def _compared(alone: Tensors, batched: Tensors, where: str) -> Iterator[_Comparison]:
    for name, expected in alone.items():
        yield _Comparison(output=name, where=where, alone=expected, batched=unpad(batched[name], expected))


def _difference(candidate: Candidate, comparison: _Comparison) -> float:
    tolerance = candidate.manifest.tolerance[comparison.output]
    difference = compare(comparison.alone, comparison.batched, atol=tolerance.atol, rtol=tolerance.rtol)
    if not difference.within:
        what = f"output {comparison.output!r} of an item changes at {comparison.where} by {difference.worst:.3g}"
        raise ExportError("invariance", f"{what}: {difference.detail}")
    return difference.worst


def _axes(inputs: Tensors) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in inputs.items()}


def _how(candidate: Candidate) -> str:
    what = f"{NUM_PROBES} items alone and in batches of 1 to {candidate.manifest.limits.max_items}"
    if isinstance(candidate.manifest.parameters, LanguageModel):
        steps = (
            "single steps at every capacity of the cache, at every position among random others, unused slots garbage"
        )
        crowds = "every row of random batches of any size, after any number of tokens"
        return f"{what}: {steps}; {crowds}; prompts alone; one thread on the CPU"
    others = "with random others, at every position, padded with garbage"
    ragged = "" if candidate.manifest.limits.max_steps is None else ", length and width"
    return f"{what} {others}; every row of random batches of any size{ragged}; one thread on the CPU"
