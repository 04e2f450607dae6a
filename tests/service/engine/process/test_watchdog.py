"""The watchdog ends a process whose event loop or compute threads have stopped, and no other process."""

import asyncio
import threading
from collections.abc import Callable
from itertools import count

import pytest

from service.engine.process.call_timeout import NUM_CHECKS
from service.engine.process.watchdog import Watchdog


class FakeLoop:
    """An event loop that runs callbacks at once, or not before `resume` while `is_running` is false."""

    def __init__(self) -> None:
        self.is_running = True
        self._callbacks: list[Callable[[], None]] = []

    def call_soon_threadsafe(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)
        if self.is_running:
            self.resume()

    def resume(self) -> None:
        self.is_running = True
        while self._callbacks:
            self._callbacks.pop()()


def check(watchdog: Watchdog, times: int) -> list[str | None]:
    return [watchdog.check() for _ in range(times)]


def test_a_blocked_event_loop_is_reported_and_a_slow_one_is_not() -> None:
    loop = FakeLoop()
    watchdog = Watchdog(loop, lambda: None, 1.0, lambda: None)  # type: ignore[arg-type]
    assert check(watchdog, 3 * NUM_CHECKS) == [None] * 3 * NUM_CHECKS
    for _ in range(3):
        loop.is_running = False
        assert check(watchdog, NUM_CHECKS) == [None] * NUM_CHECKS
        loop.resume()  # just before the timeout
        watchdog.check()
    loop.is_running = False
    reasons = check(watchdog, NUM_CHECKS + 2)
    assert reasons[:NUM_CHECKS] == [None] * NUM_CHECKS
    assert reasons[-1] == "the event loop has been blocked"


def test_hung_compute_threads_are_reported_and_busy_ones_are_not() -> None:
    released = count()
    watchdog = Watchdog(FakeLoop(), lambda: next(released), 1.0, lambda: None)  # type: ignore[arg-type]
    assert check(watchdog, 3 * NUM_CHECKS) == [None] * 3 * NUM_CHECKS
    token: list[int | None] = [7]
    watchdog = Watchdog(FakeLoop(), lambda: token[0], 1.0, lambda: None)  # type: ignore[arg-type]
    assert check(watchdog, NUM_CHECKS) == [None] * NUM_CHECKS
    token[0] = None  # a compute thread is free
    assert check(watchdog, 2) == [None] * 2
    token[0] = 7
    reasons = check(watchdog, NUM_CHECKS + 2)
    assert reasons[:NUM_CHECKS] == [None] * NUM_CHECKS
    assert reasons[-1] == "every compute thread has been busy with the same run"


def test_the_watchdog_terminates_once_and_logs_the_reason(caplog: pytest.LogCaptureFixture) -> None:
    loop, terminated = FakeLoop(), threading.Event()
    loop.is_running = False
    watchdog = Watchdog(loop, lambda: None, 0.08, terminated.set)  # type: ignore[arg-type]
    watchdog.start()
    assert terminated.wait(20)
    watchdog.join(20)
    assert not watchdog.is_alive()
    assert "the event loop has been blocked for more than 0.08 s: killing this process" in caplog.text


def test_the_watchdog_ends_with_its_event_loop() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    watchdog = Watchdog(loop, lambda: None, 0.08, lambda: pytest.fail("nothing hangs"))
    watchdog.start()
    watchdog.join(20)
    assert not watchdog.is_alive()
