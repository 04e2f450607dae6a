"""When an answer stops being of use to whoever asked for it.

A door says so once, on arrival; the engine reads it wherever the work has got to. A deadline belongs to the task that
set it and to what that task awaits, never to another request.
"""

from contextvars import ContextVar

_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


def until(end: float | None) -> None:
    """From now on, what this task asks of the engine is to be answered by `end` on the clock of `time.monotonic`, if it
    is not None.
    """
    _deadline.set(end)


def deadline() -> float | None:
    """The moment on the clock of `time.monotonic`, or None if nobody set one."""
    return _deadline.get()
