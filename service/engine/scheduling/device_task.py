"""Work of any kind that takes its turn among batches on a device thread, such as one step of a decoder."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from service.errors import as_exception


class DeviceTask:
    __slots__ = ("_args", "_function", "deadline", "future", "is_cancelled", "loop", "timer")

    def __init__(
        self, function: Callable[..., Any], args: tuple[Any, ...], loop: asyncio.AbstractEventLoop, deadline: float
    ) -> None:
        self.deadline = deadline
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()
        self.is_cancelled = False
        self.timer: asyncio.TimerHandle | None = None
        self._function = function
        self._args = args

    def run(self) -> Callable[[], None]:
        """Do the work on this thread; returns a function that hands over the result, to be called on `loop`."""
        if self.is_cancelled:
            return lambda: None
        try:
            return partial(self._succeed, self._function(*self._args))
        except BaseException as error:  # noqa: BLE001 - every error of the work belongs to its caller
            return partial(self.fail, as_exception(error))

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)

    def cancel(self) -> None:
        """Skip the work if it has not started."""
        self.is_cancelled = True
        if self.timer is not None:
            self.timer.cancel()

    def _succeed(self, result: Any) -> None:
        if not self.future.done():
            self.future.set_result(result)
