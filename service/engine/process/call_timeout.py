"""Calls that may hang, given a bound.

Invariant: `bounded` returns or raises no later than its bound, in time that the process runs, whatever the function
does. What hangs keeps its thread (nothing can stop native code) but nobody waits for it, not even the end of the
process.
"""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from service.errors import as_exception

LOOKS = 8  # without a sign of life: what counts, as the clock goes on while the whole process is stopped
Result = TypeVar("Result")


class HungError(TimeoutError):
    """A call that has not come back within its bound."""


def bounded(bound_s: float, function: Callable[..., Result], *args: Any) -> Result:
    """`function(*args)` on a thread of its own; raises what it raises, or HungError."""
    call = _Call(function, args)
    thread = threading.Thread(target=call.run, name=f"bounded-{function.__name__}", daemon=True)
    thread.start()
    for _ in range(LOOKS):
        thread.join(bound_s / LOOKS)
    if thread.is_alive():
        call.drop()
        raise HungError(f"no result within {bound_s:g} s")
    error, call.error = call.error, None
    try:
        if error is not None:
            raise error
        result: Result = call.results.pop()
        return result
    finally:
        del error  # its trace leads back here: without this the arguments would live until the next collection


class _Call:
    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._function = function
        self._args = args
        self._dropped = False
        self.results: list[Any] = []
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self.results.append(self._function(*self._args))
        except BaseException as error:  # noqa: BLE001 - raised where the call was made
            self.error = as_exception(error)
        if self._dropped:
            self.drop()

    def drop(self) -> None:
        """Nobody waits any more: keep nothing of what comes."""
        self._dropped = True
        self.results.clear()
        self.error = None
