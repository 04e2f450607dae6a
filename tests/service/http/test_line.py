"""How long the line is, from what those in it waited."""

from types import SimpleNamespace
from typing import Any

import pytest

from service.http.line import RECENT, Line


def joined(line: Line, came: float) -> Any:
    request = SimpleNamespace(came=came, place=0)
    line.join(request)
    return request


def passed(line: Line, now: float, *waits_s: float) -> None:
    """As many as that waited so long, each alone in line."""
    for wait_s in waits_s:
        line.served(joined(line, now - wait_s), now)


def test_who_comes_waits_for_all_who_are_there() -> None:
    line = Line()
    assert line.wait_s(0.0) == 0.0
    passed(line, 0.0, *[0.01] * 200)
    then = 1.0  # when nobody has waited lately
    assert line.wait_s(then) == 0.0
    first, second = joined(line, then), joined(line, then)
    assert (first.place, second.place) == (1, 2)
    assert line.wait_s(then) == pytest.approx(0.02, rel=0.06)
    line.served(first, then + 0.01)
    assert joined(line, then).place == 2
    line.leave(second)
    line.leave(second)
    line.served(second, then + 9.0)
    assert line.wait_s(then) == pytest.approx(0.01, rel=0.06)


def test_a_line_that_was_long_just_now_still_is() -> None:
    line = Line()
    passed(line, 5.0, *[0.3] * RECENT)
    assert line.wait_s(5.2) == pytest.approx(0.3)
    assert line.wait_s(5.31) == 0.0


def test_slow_clients_do_not_make_it_longer() -> None:
    line = Line()
    passed(line, 0.0, *[0.01] * 200)
    for _ in range(50):
        passed(line, 1.0, 0.9, 0.01, 0.01)
    assert line.wait_s(1.0) == pytest.approx(0.01)
    passed(line, 1.0, *[0.9, 0.01] * 100)
    joined(line, 2.0)
    assert line.wait_s(2.0) == pytest.approx(0.01, rel=0.11)
