"""One request as observers see it: what they are told while it is answered, and again when it has been.

Invariant: an observer never delays a request by waiting, and its failures never change an answer.
"""

import logging
import time
from typing import NamedTuple, Protocol

from service.http.telemetry.exposition import Samples
from service.http.wire.messages import HttpRequest, Response

log = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """How a request ended. `response` is None after a stream and for a client that disconnected (status 499)."""

    status: int
    seconds: float  # from the start of the routing to the response
    model: str  # the name and the version of the model that answered; "" if none was found
    version: str
    response: Response | None


class Observation:
    """What is noted of one request on its way. Times are those of `time.monotonic`, in seconds."""

    __slots__ = ("answer", "body", "body_at", "num_sent", "request", "route", "span")

    def __init__(self, request: HttpRequest, route: str) -> None:
        self.request = request
        self.route = route
        self.body = b""
        self.body_at = 0.0  # when the whole body had arrived; 0.0 if it was not read
        self.num_sent = 0  # bytes of a stream
        self.answer: list[bytes] = []  # the parts of a stream that an observer keeps
        self.span: object = None  # of the observer of spans

    def received(self, body: bytes) -> None:
        self.body = body
        self.body_at = time.monotonic()
        if self.request.context is not None:
            self.request.context.timings = []

    def sent(self, part: bytes) -> None:
        """A part of a stream was sent."""
        self.num_sent += len(part)


class Observer(Protocol):
    """Called for every request: on the event loop, and on the server's thread for refusals before the body is read."""

    def begin(self, observation: Observation) -> None: ...

    def end(self, observation: Observation, outcome: Outcome) -> None: ...

    def samples(self) -> Samples:
        """What the observer itself has to report."""

    def close(self) -> None:
        """Write what is pending; the service ends."""


def begin_all(observers: tuple[Observer, ...], request: HttpRequest, route: str) -> Observation:
    """Tell every observer of a request."""
    observation = Observation(request, route)
    for observer in observers:
        try:
            observer.begin(observation)
        except Exception:
            log.exception("%s failed at the start of a request", type(observer).__name__)
    return observation


def end_all(observers: tuple[Observer, ...], observation: Observation, outcome: Outcome) -> None:
    """Tell every observer how the request ended."""
    for observer in observers:
        try:
            observer.end(observation, outcome)
        except Exception:
            log.exception("%s failed at the end of a request", type(observer).__name__)
