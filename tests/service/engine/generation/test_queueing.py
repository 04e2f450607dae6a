"""A request waits for a place if it can still end before its deadline."""

import time

import pytest

from service.engine.context import RequestContext
from service.engine.generation.queueing import GenerationQueue
from service.engine.limits import Limits
from service.errors import EkibenError


def context(timeout_s: float) -> RequestContext:
    return RequestContext(time.monotonic(), timeout_s, 30.0, "", "")


def queue_of(*durations_s: float, max_waiting: int = 100) -> GenerationQueue:
    queue = GenerationQueue(Limits(max_generations=10, max_queue_items=max_waiting))
    for seconds in durations_s:
        queue.record(seconds)
    return queue


@pytest.mark.parametrize(("num_rows", "num_ahead"), [(10, 0), (90, 0), (1, 9), (5, 5)])
def test_rows_with_a_place_or_without_others_are_admitted(num_rows: int, num_ahead: int) -> None:
    queue_of(1e6).check(num_rows, num_ahead, context(0.001))


def test_rows_wait_as_long_as_recent_rows_took() -> None:
    queue = queue_of(1.0, 2.0, 30.0)
    queue.check(5, 25, context(7.0))  # 20 rows over 10 places of 2 s each, and 2 s of their own
    with pytest.raises(EkibenError, match=r"25 texts are being .* the maximum at a time is 10") as caught:
        queue.check(5, 25, context(5.5))
    assert (caught.value.slug, caught.value.retry_after_s) == ("overloaded", 4.0)


def test_a_full_queue_refuses() -> None:
    queue = queue_of(max_waiting=20)
    queue.check(5, 25, context(1.0))
    with pytest.raises(EkibenError) as caught:
        queue.check(6, 25, context(1.0))
    assert caught.value.retry_after_s == 1.0
