"""Run a call that may hang under a time limit.

Invariant: `call_with_timeout` returns or raises within its timeout, measured in time during which the process runs,
whatever the function does. Native code cannot be interrupted, so a hung call keeps its thread; the thread is a daemon
and does not delay the end of the process.
"""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from service.errors import as_exception

# A timeout is this many checks without progress. The clock alone would also count time while the process was stopped.
NUM_CHECKS = 8
Result = TypeVar("Result")


class CallTimeoutError(TimeoutError):
    """A call that did not return within its timeout."""


def call_with_timeout(timeout_s: float, function: Callable[..., Result], *args: Any) -> Result:
    """Run `function(*args)` on a new thread; raises what the function raises, or CallTimeoutError."""
    call = _TimedCall(function, args)
    thread = threading.Thread(target=call.run, name=f"call-with-timeout-{function.__name__}", daemon=True)
    thread.start()
    for _ in range(NUM_CHECKS):
        thread.join(timeout_s / NUM_CHECKS)
    if thread.is_alive():
        call.abandon()
        raise CallTimeoutError(f"no result within {timeout_s:g} s")
    error, call.error = call.error, None
    try:
        if error is not None:
            raise error
        result: Result = call.results.pop()
        return result
    finally:
        # The traceback refers to this frame: without the deletion, the arguments would live until the next collection.
        del error


class _TimedCall:
    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._function = function
        self._args = args
        self._abandoned = False
        self.results: list[Any] = []
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self.results.append(self._function(*self._args))
        except BaseException as error:  # noqa: BLE001 - raised again in the calling thread
            self.error = as_exception(error)
        if self._abandoned:
            self.abandon()

    def abandon(self) -> None:
        """Drop the result and the error, now and when the function returns later."""
        self._abandoned = True
        self.results.clear()
        self.error = None
