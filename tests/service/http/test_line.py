"""How long the line is, from a marker that goes along it."""

from typing import Any

import pytest

from service.http.line import EVERY_S, LOST_S, Line, Marker


class Protocol:
    """Holds what its futures were cancelled with, as granian does until its thread comes to them."""

    def __init__(self) -> None:
        self.held: list[Marker] = []

    def client_disconnect(self) -> Any:
        return self

    def cancel(self, reason: Marker) -> None:
        self.held.append(reason)


def test_a_marker_says_how_long_the_line_is_even_before_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    line, granian = Line(), Protocol()
    assert line.look(granian, 1.0) == 0.0
    assert line.look(granian, 1.25) == 0.25
    assert len(granian.held) == 1, "one at a time"
    monkeypatch.setattr("time.monotonic", lambda: 1.5)
    granian.held.clear()
    assert line.look(granian, 1.5) == 0.5
    assert line.look(granian, 1.5 + EVERY_S) == 0.5, "what one has just waited takes as long to be gone"
    assert len(granian.held) == 1
    assert line.look(granian, 2.2) == pytest.approx(0.7 - EVERY_S)
    monkeypatch.setattr("time.monotonic", lambda: 1.6)
    granian.held.clear()
    assert line.look(granian, 1.65) == pytest.approx(0.1 - EVERY_S)
    monkeypatch.setattr("time.monotonic", lambda: 1.7)
    granian.held.clear()
    assert line.look(granian, 3.0) == 0.0
    assert len(granian.held) == 1


def test_not_every_request_sends_a_marker(monkeypatch: pytest.MonkeyPatch) -> None:
    line, granian = Line(), Protocol()
    line.look(granian, 1.0)
    monkeypatch.setattr("time.monotonic", lambda: 1.0001)
    granian.held.clear()
    line.look(granian, 1.0002)
    assert not granian.held
    line.look(granian, 1.0001 + EVERY_S)
    assert len(granian.held) == 1


def test_a_marker_that_is_lost_harms_nobody() -> None:
    line, granian = Line(), Protocol()
    line.look(granian, 1.0)
    assert line.look(granian, 1.0 + LOST_S / 2) == LOST_S / 2
    assert line.look(granian, 1.0 + LOST_S) == 0.0
    assert len(granian.held) == 2
    assert line.look(granian, 1.0 + LOST_S + 0.1) == pytest.approx(0.1)
