"""Structured series, states and latents: zero, tiny, denormal, large, tied, and at both ends of the domain.

Shapes: T steps, C channels, L layers, N hidden size, K latent size.
"""

from collections.abc import Iterator, Mapping
from itertools import cycle

import numpy as np

from export.candidate import Candidate
from export.gates.cases import Array
from export.gates.coverage.row import Row
from service.contract.readers import SeriesReader
from service.manifest import ValueRange

# Denormal numbers first; then each power of ten up to the end of the domain.
TINY = (1e-45, 1e-40, 1e-30, 1e-20, 1e-10, 1e-6)
SHORT_STEPS = 12
NUM_TEST_ITEMS = 12
NUM_RANDOM = 24
# One in this many patterns also has the length of the longest item.
LONG_STRIDE = 3


def latent_rows(test_latents: Array, domain: ValueRange) -> Iterator[Row]:
    """Structured latents: also each value alone at both ends."""
    shape, largest = test_latents.shape[1:], _largest(test_latents)
    rows = [
        *patterns(shape, domain),
        *of_test_items(list(test_latents[:NUM_TEST_ITEMS]), domain),
        *_single_values(shape, domain),
    ]
    for name, latents in _ordinary_first(rows, largest):
        yield Row(name=name, inputs={"latents": latents}, is_extreme=_largest(latents) > largest)


def series_rows(candidate: Candidate, domain: Mapping[str, ValueRange]) -> Iterator[Row]:
    """Structured series; for a tagger each with a structured state, and each unit of the state at both ends."""
    test, reader = candidate.source.examples.inputs, candidate.manifest.reader
    longest = candidate.manifest.limits.max_steps or 1
    rows = list(_series(test, min(SHORT_STEPS, longest), longest, domain["series"]))
    states = cycle([dict[str, Array]()])
    if isinstance(reader, SeriesReader) and reader.state is not None:
        units = reader.state.layers, reader.state.hidden
        states = cycle(_states(units, domain))
        for part, other in (("h", "c"), ("c", "h")):
            for name, values in _single_values(units, domain[part]):
                state = {part: values, other: np.zeros(units, np.float32)}
                yield _series_row(f"state {part}: {name}", np.zeros_like(rows[0][1][:1]), state, is_extreme=True)
    largest = _largest(test["series"])
    for name, series in _ordinary_first(rows, largest):
        state = next(states)
        is_extreme = _largest(series) > largest or any(_largest(values) > 1 for values in state.values())
        yield _series_row(name, series, state, is_extreme=is_extreme)


def _series_row(name: str, series: Array, state: Mapping[str, Array], *, is_extreme: bool) -> Row:
    inputs = {"series": series, "lengths": np.array(len(series)), **state}
    return Row(name=name, inputs=inputs, is_extreme=is_extreme)


def _series(test: Mapping[str, Array], short: int, longest: int, domain: ValueRange) -> Iterator[tuple[str, Array]]:
    channels = test["series"].shape[2]
    items = [series[:length] for series, length in zip(test["series"], test["lengths"], strict=True)]
    for steps, stride in {longest: LONG_STRIDE, short: 1}.items():
        shape = steps, channels
        repeated = [np.resize(item, shape) for item in items[:NUM_TEST_ITEMS]]
        rows = [*list(patterns(shape, domain))[::stride], *of_test_items(repeated, domain)]
        yield from ((f"{name}, {steps} steps", values) for name, values in rows)
    for channel, (_, values) in enumerate(_single_values((channels,), domain)):
        yield f"channel {channel // 2} alone at {values[channel // 2]:g}", np.tile(values, (short, 1))
    for step in range(short):
        for value in (domain.low, domain.high):
            series = np.zeros((short, channels), np.float32)
            series[step] = value
            yield f"step {step} alone at {value:g}", series


def _states(units: tuple[int, int], domain: Mapping[str, ValueRange]) -> list[dict[str, Array]]:
    """The initial state, both ends in all units, and random signs and values."""
    parts = [dict(patterns(units, domain[part])) for part in ("h", "c")]
    by_order = zip(*(list(part.values())[::-1] for part in parts), strict=False)
    zeros = np.zeros(units, np.float32)
    return [{"h": zeros, "c": zeros}, *({"h": h, "c": c} for h, c in by_order)]


def patterns(shape: tuple[int, ...], domain: ValueRange) -> Iterator[tuple[str, Array]]:
    """Equal values of every magnitude, alternating signs, and random values up to the ends of the domain."""
    rng = np.random.default_rng(8)
    yield "all values 0", np.zeros(shape, np.float32)
    high = max(domain.high, -domain.low)
    powers = [10.0**exponent for exponent in range(-3, 1 + int(np.log10(max(high, 1.0))))]
    for magnitude in (*TINY, *powers, high / 2, high):
        for value in (magnitude, -magnitude):
            yield f"all values {value:g}", np.full(shape, value, np.float32)
    signs = np.where(np.indices(shape).sum(axis=0) % 2, 1, -1)
    yield f"alternating {high:g} and {-high:g}", (signs * high).astype(np.float32)
    for number in range(NUM_RANDOM):
        magnitudes = {
            "one magnitude": np.full(shape, high / 2 ** (number // 3)),
            "magnitudes up to": rng.random(shape) * high / 2 ** (number // 3),
            "any magnitude": high * 10 ** -rng.uniform(0, 8, shape),
        }
        kind = list(magnitudes)[number % 3]
        values = rng.choice((-1, 1), shape) * magnitudes[kind]
        yield f"random signs, {kind} ({number})", values.astype(np.float32)


def of_test_items(items: list[Array], domain: ValueRange) -> Iterator[tuple[str, Array]]:
    """Test items that are scaled, negated, reversed, or have ties."""
    for number, item in enumerate(items):
        factor = max(domain.high, -domain.low) / max(_largest(item), 1e-30)
        changes = {
            "tiny": item * np.float32(1e-6),
            "denormal": item * np.float32(1e-39),
            "ten times": item * np.float32(min(10.0, factor)),
            "up to the end of the domain": np.clip(item * np.float32(factor), domain.low, domain.high),
            "negated": -item,
            "reversed": item[::-1],
            "rounded": np.round(item),
            "its first value throughout": np.broadcast_to(item[:1], item.shape),
        }
        for name, values in changes.items():
            yield f"a test item ({number}), {name}", np.ascontiguousarray(values.astype(np.float32))


def _single_values(shape: tuple[int, ...], domain: ValueRange) -> Iterator[tuple[str, Array]]:
    """Each value alone at both ends of the domain, all others 0."""
    for index in range(int(np.prod(shape))):
        for value in (domain.high, domain.low):
            values = np.zeros(int(np.prod(shape)), np.float32)
            values[index] = value
            yield f"value {index} alone at {value:g}", values.reshape(shape)


def _ordinary_first(rows: list[tuple[str, Array]], largest: float) -> list[tuple[str, Array]]:
    """The rows by shape, and those within the range of the test items before the others."""
    return sorted(rows, key=lambda row: (row[1].shape, _largest(row[1]) > largest))


def _largest(values: Array) -> float:
    return float(np.abs(values).max())
