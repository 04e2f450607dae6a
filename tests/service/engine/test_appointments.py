"""Appointments are whole seconds away, spread over time, kept by who comes back, and forgotten after a while."""

from service.engine.appointments import GRACE_S, LATEST_S, MOMENT_S, MOST, SHARE, Appointments, Visitor


def test_an_appointment_is_at_least_a_second_and_at_least_the_wait_away() -> None:
    assert Appointments(1).make(100.0, (1,), 0.01, wait_s=0.02) == 1.0
    assert Appointments(1).make(100.0, (1,), 0.01, wait_s=3.2) == 4.0


def test_who_comes_back_as_told_is_known_once() -> None:
    appointments = Appointments(1)
    appointments.make(100.0, (7,), 0.01, wait_s=0)
    assert not appointments.keep(100.5, (7,))
    assert not appointments.keep(101.0, (8,))
    assert appointments.keep(101.01, (7,))
    assert not appointments.keep(101.02, (7,))


def test_who_comes_too_early_is_told_the_same_again() -> None:
    appointments = Appointments(1)
    appointments.make(100.0, (7,), 0.01, wait_s=2.5)
    assert [appointments.ahead_s(7, now) for now in (100.0, 101.5, 102.5, 103.0)] == [3.0, 2.0, 1.0, 0.0]
    assert appointments.make(101.5, (7,), 0.01, wait_s=0) == 2.0
    assert appointments.keep(103.0, (7,))
    assert appointments.ahead_s(8, 100.0) == 0.0


def test_one_visitor_is_known_by_all_its_fingerprints_and_comes_once() -> None:
    appointments = Appointments(1)
    appointments.make(100.0, (7, 70), 0.01, wait_s=0)
    assert appointments.keep(101.0, (8, 70))
    assert not appointments.keep(101.0, (7,))


def test_who_came_is_remembered_for_a_while_as_one_that_was_refused() -> None:
    appointments = Appointments(1)
    appointments.make(100.0, (7,), 0.01, wait_s=0)
    assert appointments.keep(101.0, (7,))
    assert 7 in appointments
    assert 8 not in appointments
    appointments.make(101.0 + GRACE_S + 2 * MOMENT_S, (8,), 0.01, wait_s=0)
    assert 7 not in appointments


def test_while_all_come_back_no_moment_is_promised_to_more_than_its_share() -> None:
    appointments = Appointments(2)
    work_s = 1 / 128
    seconds = [appointments.make(100.0, (i,), work_s, wait_s=0) for i in range(100)]
    room = int(2 * SHARE * MOMENT_S / work_s)
    assert seconds == sorted(seconds)
    assert [seconds.count(s) for s in range(1, 5)] == [room, room, room, 100 - 3 * room]


def test_where_few_come_back_more_are_told_to() -> None:
    appointments = Appointments(1)
    for i in range(1000):
        appointments.make(100.0, (i,), 0.01, wait_s=0)
    for i in range(10):
        appointments.keep(101.0, (i,))
    appointments.make(200.0, (0,), 0.01, wait_s=0)
    assert 0 < appointments.obedience < 0.02
    seconds = [appointments.make(200.0, (i,), 0.01, wait_s=0) for i in range(1, 300)]
    assert set(seconds) == {1.0}


def test_an_item_larger_than_any_share_still_gets_one() -> None:
    appointments = Appointments(1)
    assert [appointments.make(100.0, (i,), 5.0, wait_s=0) for i in range(2)] == [1.0, 2.0]


def test_who_does_not_come_within_the_grace_is_forgotten() -> None:
    appointments = Appointments(1)
    appointments.make(100.0, (1,), 0.02, wait_s=0)
    appointments.make(100.0, (2,), 0.02, wait_s=0)
    assert appointments.keep(101.0 + GRACE_S - MOMENT_S, (1,))
    assert not appointments.keep(101.0 + GRACE_S + 2 * MOMENT_S, (2,))
    assert 2 in appointments
    appointments.make(101.0 + GRACE_S + 2 * MOMENT_S, (3,), 0.02, wait_s=0)
    assert [visitor in appointments for visitor in (1, 2, 3)] == [True, False, True]


def test_when_all_is_promised_the_rest_comes_much_later() -> None:
    appointments = Appointments(1)
    seconds = [appointments.make(100.0, (i,), 1.0, wait_s=0) for i in range(LATEST_S + 5)]
    assert seconds[-1] == LATEST_S
    assert len(appointments) == LATEST_S - 1


def test_memory_is_bounded() -> None:
    appointments = Appointments(1)
    for i in range(MOST + 100):
        appointments.make(100.0, (i,), 0.0, wait_s=0)
    assert len(appointments) == MOST
    appointments.make(1000.0, (1,), 0.0, wait_s=0)
    assert len(appointments) == 1


def test_visitors_are_known_by_where_they_are_and_by_what_they_ask() -> None:
    body = bytes(range(256)) * 200
    address, content = Visitor("/classify", "a", 0.0, body).fingerprints()
    assert Visitor("/classify", "a", 1.0).fingerprints() == (address,)
    assert Visitor("/classify", "b", 1.0, bytes(bytearray(body))).fingerprints()[1:] == (content,)
    assert address not in {*Visitor("/classify", "b", 0.0).fingerprints(), *Visitor("/other", "a", 0.0).fingerprints()}
    others = [("/generate", body), ("/classify", body + b"!"), ("/classify", b"?" + body[1:]), ("/classify", b"")]
    changed = bytearray(body)
    changed[:: len(body) // 512] = b"\xff" * len(changed[:: len(body) // 512])
    others.append(("/classify", bytes(changed)))
    assert content not in {Visitor(path, "a", 0.0, other).fingerprints()[1] for path, other in others}
