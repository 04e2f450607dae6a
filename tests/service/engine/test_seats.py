"""Seats are bounded, given back whatever happens, and the wait for one is told."""

from types import SimpleNamespace

import pytest

from service.engine.seats import Seats
from service.errors import EkibenError


def test_who_finds_no_seat_is_refused_with_the_time_to_come_back() -> None:
    seats = Seats(3)
    with seats.take(2):
        with seats.take(1):
            assert seats.taken == 3
            with pytest.raises(EkibenError, match="3 texts are being generated, 3 at most") as caught, seats.take(1):
                raise AssertionError
        assert (caught.value.slug, caught.value.retry_after_s) == ("overloaded", 1.0)
        with seats.take(1):
            assert seats.taken == 3
    assert (seats.taken, seats.refused) == (0, 1)


def test_a_request_larger_than_all_seats_has_them_to_itself() -> None:
    seats = Seats(3)
    with seats.take(5), pytest.raises(EkibenError), seats.take(1):
        raise AssertionError


def test_a_generation_that_fails_gives_its_seats_back() -> None:
    seats = Seats(3)
    with pytest.raises(RuntimeError), seats.take(3):
        raise RuntimeError
    assert seats.taken == 0


def test_the_wait_follows_from_how_long_generations_took(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("service.engine.seats.time", SimpleNamespace(monotonic=lambda: now))
    seats = Seats(2)
    for _ in range(3):
        with seats.take(2):
            now += 10.0
    with seats.take(2), pytest.raises(EkibenError) as caught, seats.take(1):
        raise AssertionError
    assert caught.value.retry_after_s == 5.0  # the first of two seats, half of ten seconds from now
