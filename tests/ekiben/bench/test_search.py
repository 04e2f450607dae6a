"""The search ends just below the highest rate that holds, in a few runs."""

import pytest

from ekiben.bench.runs import Run
from ekiben.bench.search import MAX_RATE, RESOLUTION, best_of, find_highest_rate
from tests.ekiben.bench.run_results import make_run


def search(capacity: float, first_rate: float) -> list[Run]:
    return list(find_highest_rate(lambda rate: make_run(rate, valid=rate <= capacity), first_rate))


@pytest.mark.parametrize("capacity", [0.7, 3.0, 100.0, 12_345.0])
def test_the_search_ends_just_below_the_capacity(capacity: float) -> None:
    runs = search(capacity, 50.0)
    best = best_of(runs)
    assert best is not None
    assert capacity / RESOLUTION <= best.completed_rate <= capacity
    assert len(runs) <= 30


def test_a_search_without_an_answer_ends() -> None:
    assert best_of(search(0.0, 50.0)) is None
    fastest = best_of(search(10 * MAX_RATE, 50.0))
    assert fastest is not None
    assert fastest.completed_rate >= MAX_RATE / RESOLUTION


def test_one_failed_run_does_not_end_a_rate() -> None:
    calls: list[float] = []

    def measure_at(rate: float) -> Run:
        calls.append(rate)
        return make_run(rate, valid=rate <= 100 and len(calls) != 1)

    best = best_of(list(find_highest_rate(measure_at, 50.0)))
    assert best is not None
    assert best.completed_rate >= 100 / RESOLUTION
