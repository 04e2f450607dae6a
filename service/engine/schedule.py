"""What is computed next: of all models' queues and all calls, what has the earliest deadline.

A schedule is not safe to share between threads: the runner holds its lock around every use of it.
"""

import asyncio
import heapq
from collections.abc import Callable
from itertools import count
from typing import Any

from service.engine.batch import Batch
from service.engine.batcher import Batcher
from service.engine.request import Piece, Request
from service.errors import as_exception


class Call:
    """Work of any kind that takes its turn among batches: one step of a decoder, for instance."""

    __slots__ = ("_args", "_function", "deadline", "future", "gone", "loop", "timer")

    def __init__(
        self, function: Callable[..., Any], args: tuple[Any, ...], loop: asyncio.AbstractEventLoop, deadline: float
    ) -> None:
        self.deadline = deadline
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()
        self.gone = False  # its caller is
        self.timer: asyncio.TimerHandle | None = None
        self._function = function
        self._args = args

    def run(self) -> Callable[[], None]:
        """Do it, on any thread; what is returned hands over the result and is to be called on `loop`."""
        if self.gone:
            return _nothing
        try:
            result = self._function(*self._args)
        except BaseException as error:  # noqa: BLE001 - whatever it raises is its caller's
            failure = as_exception(error)
            return lambda: self.fail(failure)
        return lambda: self._succeed(result)

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)

    def settled(self) -> None:
        """Nobody waits any more."""
        self.gone = True
        if self.timer is not None:
            self.timer.cancel()

    def _succeed(self, result: Any) -> None:
        if not self.future.done():
            self.future.set_result(result)


def _nothing() -> None: ...


class Schedule:
    def __init__(self) -> None:
        self._batchers: dict[Batcher, None] = {}  # those with queued rows
        self._calls: list[tuple[float, int, Call]] = []
        self._numbers = count()

    def __bool__(self) -> bool:
        return bool(self._batchers or self._calls)

    def add(self, source: Batcher | Call) -> None:
        if isinstance(source, Batcher):
            self._batchers[source] = None
        else:
            heapq.heappush(self._calls, (source.deadline, next(self._numbers), source))

    def next_job(self, now: float) -> Batch | Call | None:
        while self._calls and self._calls[0][2].gone:
            heapq.heappop(self._calls)
        urgent = self._urgent(None)
        if self._calls and (urgent is None or self._calls[0][0] < urgent.deadline):
            return heapq.heappop(self._calls)[2]
        return None if urgent is None else urgent.request.batcher.take(now)

    def next_batch(self, now: float, limit_s: float) -> Batch | None:
        """The most urgent batch of those that should be done within `limit_s`."""
        urgent = self._urgent(limit_s)
        return None if urgent is None else urgent.request.batcher.take(now)

    def is_quick(self, limit_s: float, loop: asyncio.AbstractEventLoop) -> bool:
        """Is what comes next a request of this loop, in a batch that should be done within `limit_s`, and no call?"""
        urgent = self._urgent(None)
        if self._calls or urgent is None:
            return False
        return urgent.request.loop is loop and urgent.request.batcher.fits(urgent, limit_s)

    def clear(self) -> list[Request | Call]:
        """Forget everything; returns who waits for it."""
        dropped: list[Request | Call] = [call for *_, call in self._calls]
        for batcher in self._batchers:
            dropped += batcher.clear()
        self._calls, self._batchers = [], {}
        return dropped

    def _urgent(self, limit_s: float | None) -> Piece | None:
        """The most urgent piece, of those whose batch should be done within `limit_s`."""
        best: Piece | None = None
        for batcher in list(self._batchers):
            urgent = batcher.urgent()
            if urgent is None:
                del self._batchers[batcher]
            elif (best is None or urgent.deadline < best.deadline) and (
                limit_s is None or batcher.fits(urgent, limit_s)
            ):
                best = urgent
        return best
