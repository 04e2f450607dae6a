"""The context of one request, made once when the request arrives and passed to all code that works for it.

Invariant: a deadline and a permit belong to one request; nothing of one request is visible to another.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple


class Permit(AbstractContextManager["Permit"]):
    """The admission of a request; seconds reserved for it are released, once, when it is queued or the block ends."""

    def __init__(
        self, reserved_s: float = 0.0, release: Callable[[float], None] | None = None, *, predicted_s: float = 0.0
    ) -> None:
        self.reserved_s = reserved_s
        self.predicted_s = predicted_s  # to its answer, uncorrected; 0 if unknown
        self._release = release

    def release(self) -> None:
        release, self._release = self._release, None
        if release is not None:
            release(self.reserved_s)
            self.reserved_s = 0.0

    def __exit__(self, *_: object) -> None:
        self.release()


UNRESERVED = Permit()  # shared by all requests for which nothing is reserved


class Timing(NamedTuple):
    """When rows of a request came to the engine, and when their computing began and ended."""

    queued_at: float
    started_at: float
    ended_at: float


class RequestContext:
    """One request, from arrival to answer. Times are those of `time.monotonic`, in seconds."""

    __slots__ = (
        "client", "deadline", "has_default_deadline", "is_retry", "model", "permit", "received_at", "route",
        "timeout_s", "timings", "version",
    )  # fmt: skip

    def __init__(
        self, received_at: float, timeout_s: float | None, default_timeout_s: float, client: str, route: str
    ) -> None:
        """The client may set `timeout_s`. A returning client is recognised by `client`, unless empty, and `route`."""
        self.received_at = received_at
        self.has_default_deadline = timeout_s is None
        self.timeout_s = default_timeout_s if timeout_s is None else timeout_s
        self.deadline = received_at + self.timeout_s
        self.client = client
        self.route = route
        self.model = ""  # the name of the model that answers, once it is found
        self.version = ""  # and its version
        self.timings: list[Timing] | None = None  # a list if somebody wants to know them
        self.is_retry = False  # it comes at the time that an earlier refusal named
        self.permit = UNRESERVED

    def tighten_deadline(self, timeout_s: float) -> None:
        """The client asks for an answer within `timeout_s` of arrival: of several such limits the shortest holds."""
        if self.has_default_deadline or timeout_s < self.timeout_s:
            self.timeout_s = timeout_s
            self.deadline = self.received_at + timeout_s
        self.has_default_deadline = False
