"""It ends a process whose event loop or last thread has stopped, and no other."""

import asyncio
import threading
from itertools import count

import pytest

from service.engine.process.call_timeout import LOOKS
from service.engine.process.watchdog import Watchdog


class Loop:
    """What a watchdog asks of an event loop; `turns` says whether it does what it is told."""

    def __init__(self) -> None:
        self.turns = True

    def call_soon_threadsafe(self, function: object) -> None:
        if self.turns:
            function()  # type: ignore[operator]


def looks(watchdog: Watchdog, number: int) -> list[str | None]:
    return [watchdog.look() for _ in range(number)]


def test_a_loop_that_stands_still_is_noticed_and_one_that_is_slow_is_not() -> None:
    loop = Loop()
    watchdog = Watchdog(loop, lambda: None, 1.0, lambda: None)  # type: ignore[arg-type]
    assert looks(watchdog, 3 * LOOKS) == [None] * 3 * LOOKS
    for _ in range(3):
        loop.turns = False
        assert looks(watchdog, LOOKS) == [None] * LOOKS
        loop.turns = True
        watchdog._turn()  # late
        watchdog.look()
    loop.turns = False
    reasons = looks(watchdog, LOOKS + 2)
    assert reasons[:LOOKS] == [None] * LOOKS
    assert reasons[-1] == "the event loop has been held up"


def test_threads_that_are_all_busy_with_the_same_are_noticed_and_those_that_get_on_are_not() -> None:
    released = count()
    watchdog = Watchdog(Loop(), lambda: next(released), 1.0, lambda: None)  # type: ignore[arg-type]
    assert looks(watchdog, 3 * LOOKS) == [None] * 3 * LOOKS
    progress_token: list[int | None] = [7]
    watchdog = Watchdog(Loop(), lambda: progress_token[0], 1.0, lambda: None)  # type: ignore[arg-type]
    assert looks(watchdog, LOOKS) == [None] * LOOKS
    progress_token[0] = None  # one is free
    assert looks(watchdog, 2) == [None] * 2
    progress_token[0] = 7
    reasons = looks(watchdog, LOOKS + 2)
    assert reasons[:LOOKS] == [None] * LOOKS
    assert reasons[-1] == "every thread that computes has been busy with the same"


def test_the_process_is_ended_once_and_its_reason_logged(caplog: pytest.LogCaptureFixture) -> None:
    loop, ended = Loop(), threading.Event()
    loop.turns = False
    watchdog = Watchdog(loop, lambda: None, 0.08, ended.set)  # type: ignore[arg-type]
    watchdog.start()
    assert ended.wait(20)
    watchdog.join(20)
    assert not watchdog.is_alive()
    assert "the event loop has been held up for longer than 0.08 s: this process ends" in caplog.text


def test_it_goes_with_its_event_loop() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    watchdog = Watchdog(loop, lambda: None, 0.08, lambda: pytest.fail("nothing hangs"))
    watchdog.start()
    watchdog.join(20)
    assert not watchdog.is_alive()
