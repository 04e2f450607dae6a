"""Appointments are whole seconds away, spread over time, kept by who comes back, and forgotten after a while."""

import pytest

from service.engine.appointments import GRACE_S, LATEST_S, MOMENT_S, MOST, SHARE, Appointments


def test_an_appointment_is_at_least_a_second_and_at_least_the_wait_away() -> None:
    assert Appointments(1).make(100.0, 1, 0.01, wait_s=0.02) == 1.0
    assert Appointments(1).make(100.0, 1, 0.01, wait_s=3.2) == 4.0


def test_who_comes_back_as_told_is_known_once() -> None:
    appointments = Appointments(1)
    appointments.make(100.0, 7, 0.01, wait_s=0)
    assert not appointments.keep(100.5, 7)
    assert not appointments.keep(101.0, 8)
    assert appointments.keep(101.01, 7)
    assert not appointments.keep(101.02, 7)
    assert len(appointments) == 0


def test_two_with_the_same_inputs_have_two_appointments() -> None:
    appointments = Appointments(1)
    for _ in range(2):
        appointments.make(100.0, 7, 0.01, wait_s=0)
    assert [appointments.keep(101.0, 7) for _ in range(3)] == [True, True, False]


def test_no_moment_promises_more_than_its_share() -> None:
    appointments = Appointments(2)
    work_s = 0.01
    seconds = [appointments.make(100.0, i, work_s, wait_s=0) for i in range(100)]
    room = int(2 * SHARE * MOMENT_S / work_s)
    assert seconds == sorted(seconds)
    assert all(seconds.count(s) <= room for s in set(seconds))
    assert seconds[0] == 1.0
    assert seconds[-1] == 9.0


def test_an_item_larger_than_any_share_still_gets_one() -> None:
    appointments = Appointments(1)
    assert [appointments.make(100.0, i, 5.0, wait_s=0) for i in range(2)] == [1.0, 2.0]


def test_room_is_kept_for_those_who_are_due_until_they_come_or_the_grace_is_over() -> None:
    appointments = Appointments(1)
    appointments.make(100.0, 1, 0.02, wait_s=0)
    appointments.make(100.0, 2, 0.03, wait_s=0)
    assert appointments.promised_s(100.0) == 0
    assert appointments.promised_s(101.0) == pytest.approx(0.05)
    appointments.keep(101.0, 1)
    assert appointments.promised_s(102.0) == pytest.approx(0.03)
    assert appointments.promised_s(101.0 + GRACE_S + 2 * MOMENT_S) == 0
    assert len(appointments) == 0
    assert not appointments.keep(104.0, 2)


def test_when_all_is_promised_the_rest_comes_much_later() -> None:
    appointments = Appointments(1)
    seconds = [appointments.make(100.0, i, 1.0, wait_s=0) for i in range(LATEST_S + 5)]
    assert seconds[-1] == LATEST_S
    assert len(appointments) == LATEST_S - 1


def test_memory_is_bounded() -> None:
    appointments = Appointments(1)
    for i in range(MOST + 100):
        appointments.make(100.0, i, 0.0, wait_s=0)
    assert len(appointments) == MOST
    assert appointments.promised_s(1000.0) == 0
    assert len(appointments) == 0
