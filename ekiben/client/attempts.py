"""One call as steps, without input or output: what to send, when to try again, when to give up.

Invariant: the time of a call covers all its attempts, and each attempt tells the service what is left of it. A call is
repeated only after 429 and 503, at the time that the service asks for, and after a broken connection. Inference may be
repeated, because it changes nothing.
"""

import random
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import httpx

from ekiben.client.errors import ConnectionFailedError, DeadlineError, EkibenClientError, UnavailableError, error_of

T = TypeVar("T")
RETRIED_STATUSES = (429, 503)
FIRST_PAUSE_S, MAX_PAUSE_S = 0.05, 2.0
TOO_LATE = "no answer before the deadline"
# The largest value that the service takes.
MAX_TIMEOUT_MS = 86_400_000


@dataclass(frozen=True, kw_only=True)
class HttpAnswer:
    """An answer; `body` is empty while a stream of status 200 is being read."""

    status: int
    headers: httpx.Headers
    body: bytes


@dataclass(frozen=True, kw_only=True)
class ServiceCall(Generic[T]):
    """A request, and what becomes of its answer."""

    method: str = "POST"
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    parse: Callable[[HttpAnswer], T]
    is_retried: bool = True


class Deadline(dict[str, float]):
    """The end of a call; to httpx, which asks before each step, its timeout of any kind: what is left."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__()
        self._end = time.monotonic() + timeout_s

    @property
    def left_s(self) -> float:
        return self._end - time.monotonic()

    def check(self) -> None:
        if self.left_s <= 0:
            raise DeadlineError(TOO_LATE)

    def get(self, *_: object) -> float:
        return max(self.left_s, 0.001)


@dataclass(frozen=True, kw_only=True)
class Send:
    headers: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Pause:
    seconds: float


Outcome = HttpAnswer | httpx.TransportError | None
Steps = Generator[Send | Pause, Outcome, HttpAnswer]


def attempts(call: ServiceCall[T], deadline: Deadline, max_retries: int) -> Steps:
    """Yield what is to be done; it takes the reply of each `Send`, or the error, and returns the reply of the call."""
    num_failures = 0
    while (left_s := deadline.left_s) > 0:
        timeout_ms = min(max(round(left_s * 1e3), 1), MAX_TIMEOUT_MS)
        outcome = yield Send(headers={**call.headers, "x-request-timeout-ms": str(timeout_ms)})
        pause_s = random.uniform(0.5, 1) * min(FIRST_PAUSE_S * 2**num_failures, MAX_PAUSE_S)  # noqa: S311 - not secret
        if isinstance(outcome, HttpAnswer):
            if outcome.status < 300:
                return outcome
            error: Exception = error_of(outcome.status, outcome.headers, outcome.body)
            if outcome.status not in RETRIED_STATUSES:
                raise error
            asked_s = retry_after_s(outcome.headers)
            pause_s = pause_s if asked_s is None else asked_s
            if isinstance(error, UnavailableError):
                error.retry_after_s = asked_s
        elif isinstance(outcome, httpx.TimeoutException):
            break
        else:
            assert outcome is not None, "the outcome of `Send`"
            error = failure(outcome)
            error.__cause__ = outcome
        num_failures += 1
        if not call.is_retried or num_failures > max_retries or pause_s >= deadline.left_s:
            raise error
        yield Pause(seconds=pause_s)
    raise DeadlineError(TOO_LATE)


def failure(error: httpx.TransportError) -> EkibenClientError:
    """Return what a call raises for an error of the connection."""
    if isinstance(error, httpx.TimeoutException):
        return DeadlineError(TOO_LATE)
    return ConnectionFailedError(f"{type(error).__name__}: {error}")


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return when the service asks to come back: `retry-after-ms`, or else `Retry-After` in seconds."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name, "")
        if value.isdecimal():
            return int(value) * unit
    return None
