"""A request waits for a place if it can still end before its deadline."""

import time

import pytest

from service.engine.admission.generations import check_room
from service.engine.context import RequestContext
from service.engine.limits import Limits
from service.errors import EkibenError


def check(num_rows: int, num_ahead: int, timeout_s: float, *durations_s: float, max_waiting: int = 100) -> None:
    limits = Limits(max_generations=10, max_queue_items=max_waiting)
    check_room(num_rows, num_ahead, durations_s, limits, RequestContext(time.monotonic(), timeout_s, 30.0, "", ""))


@pytest.mark.parametrize(("num_rows", "num_ahead"), [(10, 0), (90, 0), (1, 9), (5, 5)])
def test_rows_with_a_place_or_without_others_are_admitted(num_rows: int, num_ahead: int) -> None:
    check(num_rows, num_ahead, 0.001, 1e6)


def test_rows_wait_as_long_as_recent_rows_took() -> None:
    check(5, 25, 7.0, 1.0, 2.0, 30.0)  # 20 rows over 10 places of 2 s each, and 2 s of their own
    with pytest.raises(EkibenError, match=r"25 texts are being .* the maximum at a time is 10") as caught:
        check(5, 25, 5.5, 1.0, 2.0, 30.0)
    assert (caught.value.slug, caught.value.retry_after_s) == ("overloaded", 4.0)


def test_a_full_queue_refuses() -> None:
    check(5, 25, 1.0, max_waiting=20)
    with pytest.raises(EkibenError) as caught:
        check(6, 25, 1.0, max_waiting=20)
    assert caught.value.retry_after_s == 1.0
