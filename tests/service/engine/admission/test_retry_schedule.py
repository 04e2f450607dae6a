"""Reservations are whole seconds away, spread over time, redeemed once, and dropped after a grace period."""

from service.engine.admission.retry_schedule import (
    GRACE_S,
    MAX_RESERVATIONS,
    MAX_RETRY_AFTER_S,
    RETRY_SHARE,
    SLOT_S,
    RetrySchedule,
)
from service.engine.batching.cost_model import CostEstimate
from service.engine.metrics import Counters

COUNTERS = Counters(model="m", version="1")


def reserve(
    schedule: RetrySchedule, client: int, *, now: float = 100.0, work_s: float = 0.01, wait_s: float = 0.0
) -> float:
    cost = CostEstimate(counters=COUNTERS, num_rows=1, queued_rows=0, work_s=work_s, batch_s=0.0, measured_at=now)
    return schedule.reserve(now, (str(client), "/path"), cost, wait_s=wait_s)


def is_redeemed(schedule: RetrySchedule, client: int, now: float) -> bool:
    return schedule.redeem((str(client), "/path"), now) is not None


def remaining_s(schedule: RetrySchedule, client: int, now: float) -> float:
    upcoming = schedule.upcoming((str(client), "/path"), now)
    return 0.0 if upcoming is None else upcoming[1]


def test_a_retry_is_at_least_a_second_and_at_least_the_wait_away() -> None:
    assert reserve(RetrySchedule(1), 1, wait_s=0.02) == 1.0
    assert reserve(RetrySchedule(1), 1, wait_s=3.2) == 4.0


def test_a_client_that_returns_on_time_redeems_its_reservation_once() -> None:
    schedule = RetrySchedule(1)
    reserve(schedule, 7, work_s=0.25)
    assert not is_redeemed(schedule, 7, 100.5)
    assert not is_redeemed(schedule, 8, 101.0)
    reservation = schedule.redeem(("7", "/path"), 101.01)
    assert reservation is not None
    assert (reservation.cost.work_s, reservation.cost.counters) == (0.25, COUNTERS)
    assert not is_redeemed(schedule, 7, 101.02)
    assert len(schedule) == 0


def test_a_client_that_returns_early_is_told_the_same_time_again() -> None:
    schedule = RetrySchedule(1)
    reserve(schedule, 7, wait_s=2.5)
    assert [remaining_s(schedule, 7, now) for now in (100.0, 101.5, 102.5, 103.0)] == [3.0, 2.0, 1.0, 0.0]
    assert reserve(schedule, 7, now=101.5) == 2.0
    assert is_redeemed(schedule, 7, 103.0)
    assert remaining_s(schedule, 8, 100.0) == 0.0


def test_a_client_has_a_reservation_for_each_route() -> None:
    schedule = RetrySchedule(1)
    reserve(schedule, 7)
    assert schedule.redeem(("7", "/other"), 101.0) is None
    assert is_redeemed(schedule, 7, 101.0)


def test_a_new_refusal_replaces_a_reservation_whose_time_has_come() -> None:
    schedule = RetrySchedule(1)
    reserve(schedule, 7)
    assert reserve(schedule, 7, now=101.0) == 1.0
    assert len(schedule) == 1
    assert not is_redeemed(schedule, 7, 101.0)
    assert is_redeemed(schedule, 7, 102.0)


def test_no_slot_is_promised_to_more_than_its_share() -> None:
    schedule = RetrySchedule(2)
    work_s = 1 / 128
    seconds = [reserve(schedule, i, work_s=work_s) for i in range(100)]
    capacity = int(2 * RETRY_SHARE * SLOT_S / work_s)
    assert seconds == sorted(seconds)
    assert [seconds.count(s) for s in range(1, 5)] == [capacity, capacity, capacity, 100 - 3 * capacity]


def test_redeemed_and_replaced_reservations_free_their_share() -> None:
    schedule = RetrySchedule(1)
    capacity_s = RETRY_SHARE * SLOT_S
    assert [reserve(schedule, i, work_s=capacity_s) for i in range(2)] == [1.0, 2.0]
    assert is_redeemed(schedule, 0, 101.0)
    assert reserve(schedule, 2, now=101.0, work_s=capacity_s) == 2.0  # the slot of 102 is promised to client 1
    assert is_redeemed(schedule, 1, 102.0)
    assert reserve(schedule, 3, now=101.0, work_s=capacity_s) == 1.0


def test_a_redeemed_reservation_frees_its_share_of_a_slot_alone() -> None:
    schedule = RetrySchedule(1)
    work_s = RETRY_SHARE * SLOT_S / 3
    assert [reserve(schedule, i, work_s=work_s) for i in range(3)] == [1.0, 1.0, 1.0]
    assert is_redeemed(schedule, 0, 101.0)
    assert [reserve(schedule, i, work_s=work_s) for i in range(3, 5)] == [1.0, 2.0]


def test_a_request_larger_than_any_share_gets_a_slot_to_itself() -> None:
    schedule = RetrySchedule(1)
    assert [reserve(schedule, i, work_s=5.0) for i in range(2)] == [1.0, 2.0]


def test_reservations_are_dropped_after_the_grace_period() -> None:
    schedule = RetrySchedule(1)
    reserve(schedule, 1)
    reserve(schedule, 2)
    assert is_redeemed(schedule, 1, 101.0 + GRACE_S - SLOT_S)
    assert not is_redeemed(schedule, 2, 101.0 + GRACE_S + 2 * SLOT_S)
    assert len(schedule) == 1
    schedule.drop_expired(101.0 + GRACE_S + 2 * SLOT_S)
    assert len(schedule) == 0
    assert reserve(schedule, 3, now=101.0) == 1.0


def test_when_every_slot_is_promised_clients_are_told_the_longest_wait() -> None:
    schedule = RetrySchedule(1)
    seconds = [reserve(schedule, i, work_s=1.0) for i in range(MAX_RETRY_AFTER_S + 5)]
    assert seconds[-1] == MAX_RETRY_AFTER_S
    assert len(schedule) == MAX_RETRY_AFTER_S - 1


def test_memory_is_bounded() -> None:
    schedule = RetrySchedule(1)
    for i in range(MAX_RESERVATIONS + 100):
        reserve(schedule, i, work_s=0.0)
    assert len(schedule) == MAX_RESERVATIONS
    reserve(schedule, 1, now=1000.0, work_s=0.0)
    assert len(schedule) == 1
