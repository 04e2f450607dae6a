"""Run a call that may hang under a time limit.

Invariant: `call_with_timeout` returns or raises within its timeout, not counting time in which the process is stopped.
A hung native call cannot be interrupted: it keeps its thread, a daemon that does not delay the end of the process.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from service.errors import as_exception

# A timeout is this many checks without progress. The clock alone would also count time while the process was stopped.
NUM_CHECKS = 8
Result = TypeVar("Result")


class CallTimeoutError(TimeoutError):
    """A call that did not return within its timeout."""


def call_with_timeout(timeout_s: float, function: Callable[..., Result], *args: Any) -> Result:
    """Run `function(*args)` on a new thread; raises what the function raises, or CallTimeoutError."""
    future: Future[Result] = Future()
    name = f"call-with-timeout-{function.__name__}"
    thread = threading.Thread(target=_run, args=(future, function, *args), name=name, daemon=True)
    thread.start()
    for _ in range(NUM_CHECKS):
        thread.join(timeout_s / NUM_CHECKS)
    try:
        if future.done():
            return future.result()
        raise CallTimeoutError(f"no result within {timeout_s:g} s")
    finally:
        # A traceback refers to this frame: a cycle through the future would keep the arguments until a collection.
        del future


def _run(future: Future[Result], function: Callable[..., Result], *args: Any) -> None:
    try:
        future.set_result(function(*args))
    except BaseException as error:  # noqa: BLE001 - raised again in the calling thread
        future.set_exception(as_exception(error))
    finally:
        del future
