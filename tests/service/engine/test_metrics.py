"""Durations are counted in the bin that their bound promises."""

import pytest

from service.engine.metrics import BOUNDS_S, NUM_BINS, Histogram


@pytest.mark.parametrize("seconds", [0.0, 0.4e-6, 1e-6, 3e-6, 0.001, 0.5, 33.0, 1e5])
def test_a_duration_is_below_the_bound_of_its_bin_and_not_below_the_one_before(seconds: float) -> None:
    histogram = Histogram()
    histogram.add(seconds)
    place = histogram.counts.index(1)
    assert place == NUM_BINS - 1 or seconds < BOUNDS_S[place]
    assert place == 0 or seconds >= BOUNDS_S[place - 1]
    assert (histogram.count, histogram.sum_s, sum(histogram.counts)) == (1, seconds, 1)


def test_there_is_a_bound_for_every_bin_but_the_last() -> None:
    assert len(BOUNDS_S) == NUM_BINS - 1
    assert list(BOUNDS_S) == sorted(BOUNDS_S)
