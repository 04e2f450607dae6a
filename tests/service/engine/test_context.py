"""A request's deadline is decided once, and its permit is released once."""

import pytest

from service.engine.context import UNRESERVED, Permit, RequestContext
from tests.service.engine.requests import make_context


def context(timeout_s: float | None) -> RequestContext:
    return RequestContext(100.0, timeout_s, 30.0, "", "/path")


def test_the_deadline_counts_from_arrival() -> None:
    assert (context(None).deadline, context(2.0).deadline, context(3600.0).deadline) == (130.0, 102.0, 3700.0)


def test_of_several_limits_of_a_client_the_shortest_holds() -> None:
    asked = context(5.0)
    for timeout_s, deadline in ((7.0, 105.0), (2.0, 102.0), (3.0, 102.0)):
        asked.tighten_deadline(timeout_s)
        assert asked.deadline == deadline


def test_a_limit_of_the_client_replaces_the_default() -> None:
    asked = context(None)
    asked.tighten_deadline(60.0)
    assert asked.deadline == 160.0
    asked.tighten_deadline(90.0)
    assert asked.deadline == 160.0


def test_a_permit_is_released_once() -> None:
    released: list[float] = []
    with Permit(2.5, release=released.append) as permit:
        assert permit.reserved_s == 2.5
        permit.release()
        assert (released, permit.reserved_s) == ([2.5], 0.0)
    assert released == [2.5]


def test_leaving_the_block_releases_a_permit_whatever_happens() -> None:
    released: list[float] = []
    with pytest.raises(ZeroDivisionError), Permit(1.0, release=released.append):
        raise ZeroDivisionError
    assert released == [1.0]


def test_a_new_context_reserves_nothing() -> None:
    one = make_context(9.0)
    assert one.permit is UNRESERVED
    with one.permit:
        assert one.permit.reserved_s == 0.0
        assert one.permit.predicted_s == 0.0


def test_a_request_is_no_retry_until_a_reservation_is_redeemed() -> None:
    assert not context(None).is_retry
    assert (context(None).timeout_s, context(2.0).timeout_s) == (30.0, 2.0)
