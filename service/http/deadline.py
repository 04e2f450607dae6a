"""How long a client waits for its answer, as it says so.

Invariant: of several limits the shortest holds; without any, the engine's own does.
"""

from service.engine.deadline import deadline, until
from service.errors import EkibenError
from service.http.wire.messages import parse_digits

MAX_TIMEOUT_MS = 24 * 3600 * 1000


def at_most(timeout_s: float, came: float) -> None:
    """The request of this task is of no use `timeout_s` after it came (`time.monotonic`)."""
    end = deadline()
    until(came + timeout_s if end is None else min(came + timeout_s, end))


def at_last(timeout_s: float, came: float) -> None:
    """The same, unless the client has said how long it waits."""
    if deadline() is None:
        until(came + timeout_s)


def read_timeout_ms(value: str) -> float:
    """The seconds of an `X-Request-Timeout-Ms` header."""
    timeout_ms = parse_digits(value)
    if timeout_ms is None or not 1 <= timeout_ms <= MAX_TIMEOUT_MS:
        detail = f"X-Request-Timeout-Ms: expected 1 to {MAX_TIMEOUT_MS}, got {value[:40]!r}"
        raise EkibenError("invalid-request", detail)
    return timeout_ms / 1e3
