"""The batch invariance gate: whether an item's output depends on the other items in its batch.

The gate runs single items in the served session, then batches that contain them, and compares the outputs. The batches
are mixed batches with a probe at every position, padded with garbage, and random batches in which it compares every
row. The gate chooses the cheapest batching strategy under which not one bit ever differs, and certifies the level
`bitwise`. If no strategy achieves that, the candidate is refused, unless its recipe accepts the level `tolerance`: the
certificate then has the largest difference, and no strategy, because a strategy costs time. A model without a batch
axis runs each item alone, so that there is nothing to measure.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from export.candidate import Candidate
from export.errors import ExportError
from export.gates.cases import Array, has_equal_bits, ragged_inputs
from export.gates.inputs.effort import max_rows
from export.gates.inputs.sizes import free_axes
from export.gates.probes import NUM_PROBES, ProbeGroup, affordable_rows, chunk_pairs, probe_groups, single_row
from service.bundle import GoldenCase, Tensors
from service.contract.heads import LanguageModelHead
from service.engine.limits import MAX_BATCH_ITEMS
from service.engine.sessions.session import Session
from service.engine.verification.batch_invariance import find_mismatches, unpad
from service.engine.verification.parity import compare
from service.engine.verification.shapes import doubling, doubling_with_midpoints
from service.manifest import Invariance

# The largest batch of the model is tested too.
SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 31, 32)
# Width of a batch, relative to its longest probe.
PADDINGS = (1.0, 1.5, 8.0)
# Batches that exceed the requests of the model, up to the largest setting of the service; each row is a probe.
LARGE_SIZES = (128, 255, 512, MAX_BATCH_ITEMS)
# The inputs of a large batch.
MAX_LARGE_BYTES = 64 << 20
FIRST_BATCH, LAST_BATCH = 4, 32
FIRST_LENGTH = 8


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """`max_differences` holds each output's largest difference; `num_equal` counts comparisons with equal bits.

    `location` says where an output differs most; it is empty if none does.
    """

    invariance: Invariance
    max_differences: dict[str, float]
    num_equal: int
    num_compared: int
    location: str = ""


@dataclass(frozen=True, kw_only=True)
class _Comparison:
    """An output of one item, alone and in a batch."""

    output: str
    location: str
    single: Array
    batched: Array

    @property
    def is_equal(self) -> bool:
        return has_equal_bits(self.single, self.batched)


def certify(candidate: Candidate, golden: Sequence[GoldenCase] = ()) -> Certificate:
    """Measure invariance and choose the batching strategy.

    The service checks the certificate on the golden cases when it loads the bundle, so a strategy must hold for them
    too. Raises ExportError if an output changes with its batch by more than its tolerance, or by any amount if the
    recipe does not accept that.
    """
    if not candidate.manifest.is_batched:
        return _certificate_without_batches(candidate)
    cases = dict(enumerate(golden))
    unpadded = _measure(candidate, Invariance(level="tolerance", measured=0, how=_description(candidate)))
    golden_differences = [mismatch.difference for mismatch in find_mismatches(candidate.session, cases)]
    if unpadded.invariance.level == "bitwise" and not golden_differences:
        return unpadded
    for invariance in _strategies(candidate):
        adapted = candidate.with_invariance(invariance)
        if (num_compared := _count_if_equal(adapted)) and not any(find_mismatches(adapted.session, cases)):
            return Certificate(
                invariance=invariance.model_copy(update={"level": "bitwise"}),
                max_differences=dict.fromkeys(unpadded.max_differences, 0.0),
                num_equal=num_compared,
                num_compared=num_compared,
            )
    measured = max([unpadded.invariance.measured, *golden_differences])
    if candidate.source.invariance == "bitwise":
        raise ExportError(
            "invariance",
            f"an answer changes with its batch by up to {measured:.3g} ({unpadded.location or 'a golden case'}), and "
            "no batching strategy prevents it; " + _way_out(candidate),
        )
    invariance = unpadded.invariance.model_copy(update={"level": "tolerance", "measured": measured})
    return replace(unpadded, invariance=invariance)


def _certificate_without_batches(candidate: Candidate) -> Certificate:
    how = "the model has no batch axis, so every item runs alone"
    return Certificate(
        invariance=Invariance(level="bitwise", measured=0, how=how),
        max_differences=dict.fromkeys(candidate.manifest.tolerance, 0.0),
        num_equal=0,
        num_compared=0,
    )


def _way_out(candidate: Candidate) -> str:
    place = "in the recipe" if candidate.source.run is not None else "for the model"
    return f"set invariance='tolerance' {place} to accept the difference"


def _strategies(candidate: Candidate) -> Iterator[Invariance]:
    """The strategies in order of cost, the cheapest first."""
    limits, how = candidate.manifest.limits, _description(candidate)
    yield Invariance(level="tolerance", measured=0, how=how, strategy="minimum-batch-2")
    sizes = doubling(FIRST_BATCH, min(LAST_BATCH, limits.max_items))
    yield Invariance(level="tolerance", measured=0, how=how, strategy="batch-buckets", bounds=sizes)
    if limits.max_steps is not None and candidate.manifest.is_ragged:
        lengths = doubling_with_midpoints(FIRST_LENGTH, limits.max_steps)
        yield Invariance(level="tolerance", measured=0, how=how, strategy="length-buckets", bounds=lengths)


def _measure(candidate: Candidate, invariance: Invariance) -> Certificate:
    max_differences = {spec.name: 0.0 for spec in candidate.manifest.outputs}
    num_equal, num_compared, largest, location = 0, 0, -1.0, ""
    for comparison in _comparisons(candidate.with_invariance(invariance)):
        num_compared += 1
        is_equal = comparison.is_equal
        num_equal += is_equal
        # A value that is not finite agrees with none, not even with itself.
        if is_equal and (comparison.single.dtype.kind != "f" or np.isfinite(comparison.single).all()):
            continue
        difference = _difference(candidate, comparison)
        if not is_equal and difference > largest:
            largest, location = difference, f"output {comparison.output!r} at {comparison.location}"
        max_differences[comparison.output] = max(max_differences[comparison.output], difference)
    level = "bitwise" if num_equal == num_compared else "tolerance"
    return Certificate(
        invariance=invariance.model_copy(update={"level": level, "measured": max(max_differences.values())}),
        max_differences=max_differences,
        num_equal=num_equal,
        num_compared=num_compared,
        location=location,
    )


def _count_if_equal(candidate: Candidate) -> int:
    """The number of comparisons if all are equal, else 0."""
    num_compared = 0
    for comparison in _comparisons(candidate):
        if not comparison.is_equal:
            return 0
        num_compared += 1
    return num_compared


def _comparisons(candidate: Candidate) -> Iterator[_Comparison]:
    rng, session = np.random.default_rng(1), candidate.session
    for number, group in enumerate(probe_groups(candidate, session, rng)):
        if group.capacity is not None:
            yield from _compare_chunks(candidate, session, group.capacity, rng)
        yield from _compare_mixed(group, session, rng)
        # The random batches of a model with free axes are of any size, whatever the sizes of the group.
        if number == 0 or group.capacity is not None:
            yield from _compare_random(group, session)
        yield from _compare_large(group, session, rng)


def _compare_chunks(
    candidate: Candidate, session: Session, capacity: int, rng: np.random.Generator
) -> Iterator[_Comparison]:
    """A prompt is read alone, but the slots of its cache may hold what earlier sequences left there."""
    for zeros, noise in chunk_pairs(candidate, session, capacity, rng):
        location = f"a chunk after {int(zeros['past_lengths'][0])} tokens in a used cache of {capacity}"
        yield from _compare_outputs(session.run(zeros), session.run(noise), location)


def _compare_mixed(group: ProbeGroup, session: Session, rng: np.random.Generator) -> Iterator[_Comparison]:
    """Compare probes in batches of random rows. Over all rounds, every position holds some probe."""
    single = [session.run(probe) for probe in group.probes]
    cache = "" if group.capacity is None else f", caches of {group.capacity}"
    max_items = group.candidate.manifest.limits.max_items
    sizes = sorted({size for size in SIZES if size <= max_items} | {max_items})
    affordable = affordable_rows(group.candidate, group.sizes) // len(sizes)
    for batch in sizes:
        rounds = list(probe_positions(batch))
        stride = max(1, len(rounds) * batch // max(affordable, batch))
        for shift, positions in list(enumerate(rounds))[::stride]:
            outputs = session.run(group.mixed_batch(positions, batch, PADDINGS[shift % len(PADDINGS)], rng))
            for position, number in positions.items():
                location = f"position {position} of a batch of {batch}{cache}"
                yield from _compare_outputs(single[number], _row(outputs, position), location)


def probe_positions(batch: int) -> Iterator[dict[int, int]]:
    """The number of the probe at some positions, for each round. Over all rounds, every position holds some probe."""
    num_placed = min(batch, NUM_PROBES)
    stride = max(1, batch // NUM_PROBES)
    is_small = batch <= 2 * NUM_PROBES
    num_rounds = NUM_PROBES if batch == 1 else batch if is_small else batch - (num_placed - 1) * stride
    for shift in range(num_rounds):
        yield {(shift + i * stride) % batch: (i + shift) % NUM_PROBES for i in range(num_placed)}


def _compare_large(group: ProbeGroup, session: Session, rng: np.random.Generator) -> Iterator[_Comparison]:
    """Compare every row of batches that exceed the model's requests; each probe takes every position in turn."""
    group = group.shortened()
    row_bytes = sum(array.nbytes for array in group.probes[0].values())
    affordable = max_rows(group.candidate, group.sizes) // (len(LARGE_SIZES) * NUM_PROBES)
    single = [session.run(probe) for probe in group.probes]
    for batch in LARGE_SIZES:
        if batch * row_bytes > MAX_LARGE_BYTES or batch > affordable:
            continue
        for shift in range(NUM_PROBES):
            positions = {position: (position + shift) % NUM_PROBES for position in range(batch)}
            outputs = session.run(group.mixed_batch(positions, batch, 1.0, rng))
            for position, number in positions.items():
                location = f"position {position} of a batch of {batch}"
                yield from _compare_outputs(single[number], _row(outputs, position), location)


def _compare_random(group: ProbeGroup, session: Session) -> Iterator[_Comparison]:
    """Compare every row of the random batches with the same row alone."""
    ragged = ragged_inputs(group.candidate.manifest)
    for inputs in group.random_batches():
        outputs, batch = session.run(inputs), len(next(iter(inputs.values())))
        for position in range(batch):
            item = single_row(inputs, position, ragged)
            shapes = f"inputs {_shapes(item)} alone and {_shapes(inputs)} there"
            location = f"position {position} of a batch of {batch}, {shapes}"
            yield from _compare_outputs(session.run(item), _row(outputs, position), location)


def _compare_outputs(single: Tensors, batched: Tensors, location: str) -> Iterator[_Comparison]:
    for name, expected in single.items():
        yield _Comparison(output=name, location=location, single=expected, batched=unpad(batched[name], expected))


def _row(outputs: Tensors, position: int) -> Tensors:
    return {name: array[position : position + 1] for name, array in outputs.items()}


def _difference(candidate: Candidate, comparison: _Comparison) -> float:
    tolerance = candidate.manifest.tolerance[comparison.output]
    difference = compare(comparison.single, comparison.batched, atol=tolerance.atol, rtol=tolerance.rtol)
    if not difference.within:
        raise ExportError(
            "invariance",
            f"output {comparison.output!r} of an item changes at {comparison.location} by {difference.worst:.3g}: "
            f"{difference.detail}",
        )
    return difference.worst


def _shapes(inputs: Tensors) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in inputs.items()}


def _description(candidate: Candidate) -> str:
    """Describe how the certificate was measured. Changing this text changes every version: the manifest holds it."""
    items = (
        f"{NUM_PROBES} items alone and in batches of 1 to {candidate.manifest.limits.max_items}, and some larger ones"
    )
    if isinstance(candidate.manifest.head, LanguageModelHead):
        return (
            f"{items}: single steps at every capacity of the cache, at every position among random others, unused "
            "slots garbage; every row of random batches of any size, after any number of tokens; chunks of prompts; "
            "one thread on the CPU"
        )
    ragged = "" if candidate.manifest.limits.max_steps is None else ", length and width"
    if axes := free_axes(candidate.manifest):
        ragged += ", and any " + " and ".join(axes)
    return (
        f"{items} with random others, at every position, padded with garbage; every row of random batches of any "
        f"size{ragged}; one thread on the CPU"
    )
