"""Work of any kind that takes its turn among batches: one step of a decoder, for instance."""

import asyncio
from collections.abc import Callable
from typing import Any


class Call:
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
        except Exception as error:  # noqa: BLE001 - whatever it raises is its caller's
            return lambda error=error: self.fail(error)  # type: ignore[misc]
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
