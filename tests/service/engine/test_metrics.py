"""Durations are counted in the bin that their bound promises."""

from dataclasses import asdict

import pytest

from service.engine.metrics import BOUNDS_S, NUM_BINS, Counters, GenerationCounters, Histogram


@pytest.mark.parametrize("seconds", [0.0, 0.4e-6, 1e-6, 3e-6, 0.001, 0.5, 33.0, 1e5])
def test_a_duration_is_below_the_bound_of_its_bin_and_not_below_the_one_before(seconds: float) -> None:
    histogram = Histogram()
    histogram.add(seconds)
    place = histogram.counts.index(1)
    assert place == NUM_BINS - 1 or seconds < BOUNDS_S[place]
    assert place == 0 or seconds >= BOUNDS_S[place - 1]
    assert (histogram.count, histogram.sum_s, sum(histogram.counts)) == (1, seconds, 1)


def test_durations_add_up() -> None:
    histogram = Histogram()
    histogram.add(0.5)
    histogram.add(0.25)
    assert (histogram.count, histogram.sum_s) == (2, 0.75)


def test_all_counters_begin_at_zero() -> None:
    first, other = (Counters(model="m", version="1") for _ in range(2))
    first.queue_s.add(1.0)
    first.compute_s.add(1.0)
    first.succeeded.add(1.0)
    first.failed.add(1.0)
    first.generation.inter_token_s.add(1.0)
    first.generation.finished["stop"] += 1
    empty, generation = asdict(Histogram()), asdict(GenerationCounters())
    assert not any(value for name, value in generation.items() if not name.endswith("_s"))
    assert {name: value for name, value in asdict(other).items() if value != 0} == {
        "model": "m", "version": "1", "refused": {}, "queue_s": empty, "compute_s": empty,
        "succeeded": {"count": 0, "sum_s": 0.0}, "failed": {"count": 0, "sum_s": 0.0},
        "generation": generation,
    }  # fmt: skip


def test_there_is_a_bound_for_every_bin_but_the_last() -> None:
    assert len(BOUNDS_S) == NUM_BINS - 1
    assert list(BOUNDS_S) == sorted(BOUNDS_S)
