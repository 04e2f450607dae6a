"""How long the line is, from a marker that goes along it."""

from types import SimpleNamespace
from typing import Any

import pytest

from service.http.line import EVERY_S, LONG_S, LOST_S, Line, Marker


class Protocol:
    """Holds what its futures were cancelled with, as granian does until its thread comes to them."""

    def __init__(self) -> None:
        self.held: list[Marker] = []
        self.sent = 0

    def client_disconnect(self) -> Any:
        return self

    def cancel(self, reason: Marker) -> None:
        self.held.append(reason)
        self.sent += 1


class Scene:
    """A line that takes `wait_s` for whoever joins it; somebody does every millisecond."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1.0
        self.line, self.granian = Line(), Protocol()
        monkeypatch.setattr("service.http.line.time", SimpleNamespace(monotonic=lambda: self.now))
        self._comes_back: float | None = None

    def play(self, seconds: float, wait_s: float, behind_s: float = 0.0) -> list[float]:
        looks = []
        for _ in range(round(seconds * 1000)):
            self.now += 0.001
            if self._comes_back is not None and self.now >= self._comes_back:
                self._comes_back = None
                self.granian.held.clear()
            looks.append(self.line.look(self.granian, self.now, behind_s))
            if self.granian.held and self._comes_back is None:
                self._comes_back = self.now + wait_s
        return looks


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch)


def test_a_line_that_stands_is_as_long_as_it_takes_a_marker(scene: Scene) -> None:
    looks = scene.play(2.0, 0.03)
    began = next(i for i, look in enumerate(looks) if look)
    assert began >= 200, "it may be a burst"
    assert min(looks[began:]) >= 0.029
    assert max(looks) <= 0.035
    assert scene.play(0.1, 0.0)[-1] == 0.0
    scene.play(2.0, 0.0)
    assert max(scene.play(0.2, 0.03)) == 0.0, "it has to stand again first"
    looks = scene.play(3.0, 0.4)
    assert looks[-1] >= 0.39, "before the next marker is back, too"


def test_a_line_that_swings_still_stands(scene: Scene) -> None:
    scene.play(2.0, 0.03)
    looks = [look for _ in range(10) for look in scene.play(0.05, 0.001) + scene.play(0.05, 0.03)]
    assert sum(look > 0 for look in looks) > 300


@pytest.mark.parametrize(("pause_s", "every_s"), [(0.02, 0.1), (0.3, 1.0), (1.0, 3.0), (1.5, 60.0)])
def test_pauses_are_no_line_however_often_they_come(pause_s: float, every_s: float, scene: Scene) -> None:
    looks: list[float] = []
    for _ in range(20):
        looks += scene.play(0.01, pause_s)
        scene.now += pause_s
        looks += scene.play(0.05, 0.0)
        scene.now += max(every_s - pause_s - 1.0, 0.0)  # when nobody comes
        looks += scene.play(min(every_s - pause_s, 1.0), 0.0)
    assert max(looks) == 0.0


def test_an_event_loop_that_stays_behind_is_a_line_too(scene: Scene) -> None:
    looks = scene.play(2.0, 0.0, 0.03)
    assert looks[-1] == 0.03
    assert max(looks[:200]) == 0.0
    assert scene.play(0.1, 0.0)[-1] == 0.0


def test_what_takes_less_is_of_no_interest(scene: Scene) -> None:
    assert max(scene.play(1.0, LONG_S - 0.0015)) == 0.0


def test_not_every_request_sends_a_marker(scene: Scene) -> None:
    scene.play(1.0, 0.0)
    assert 0.2 / EVERY_S < scene.granian.sent <= 1.0 / EVERY_S + 1


def test_a_marker_that_is_lost_harms_nobody(scene: Scene) -> None:
    assert max(scene.play(LOST_S + 0.5, 1e9)) == 0.0
    assert scene.granian.sent == 2
