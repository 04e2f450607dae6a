"""Counts and durations of the HTTP requests of this process, by model, route and status."""

import threading
import time
from collections import Counter, defaultdict
from typing import NamedTuple

from service.engine.metrics import Histogram, bin_of
from service.http.telemetry.observation import Observer, Outcome, begin_all, end_all
from service.http.wire.messages import HttpRequest, Response


class Exemplar(NamedTuple):
    """A request that stands for others of about its duration."""

    trace_id: str
    seconds: float
    recorded_at: float  # Unix time


class ResponseMetrics:
    """`responses` counts by (route, status), where 499 stands for a client that disconnected before the response."""

    def __init__(self) -> None:
        self.responses: Counter[tuple[str, int]] = Counter()
        self.durations: defaultdict[str, Histogram] = defaultdict(Histogram)  # by route


class RequestMetrics(ResponseMetrics):
    """The requests that no model answered, and in `models` those that one did, by its (name, version).

    So the number of series follows from the models and routes of the service, whatever clients ask for.
    """

    def __init__(
        self, observers: tuple[Observer, ...] = (), *, has_triton_names: bool = False, revision: str = ""
    ) -> None:
        """`has_triton_names` shows numbers under Triton's names too; `revision` is that of the running sources."""
        super().__init__()
        self.has_triton_names = has_triton_names
        self.revision = revision
        self.in_flight = 0  # inference requests in progress; only the event loop writes it
        self.models: dict[tuple[str, str], ResponseMetrics] = {}
        self.exemplars: dict[tuple[str, int], Exemplar] = {}  # the latest one by route and bin of its histogram
        self.observers = observers
        self._lock = threading.Lock()

    @property
    def num_responses(self) -> int:
        """All responses so far."""
        with self._lock:
            return sum(metrics.responses.total() for metrics in (self, *self.models.values()))

    def record(self, route: str, status: int, seconds: float, model: str = "", version: str = "") -> None:
        """Count one response; `model` is one that the service has, or "". Thread-safe."""
        with self._lock:
            key = model, version
            metrics = self if not model else self.models.get(key) or self.models.setdefault(key, ResponseMetrics())
            metrics.responses[route, status] += 1
            metrics.durations[route].add(seconds)

    def begin(self, request: HttpRequest, route: str) -> None:
        """Tell the observers, if any, of a request; `end` is to follow. Thread-safe, as is `end`."""
        if self.observers:  # the router asks too: a call costs more than the question
            request.observation = begin_all(self.observers, request, route)

    def end(
        self, request: HttpRequest, route: str, status: int, seconds: float, response: Response | None = None
    ) -> None:
        """Count the response of a request, and tell the observers; `response` is None after a stream."""
        context = request.context
        model, version = ("", "") if context is None else (context.model, context.version)
        self.record(route, status, seconds, model, version)
        # An observation refers to its request, whose body and connection would otherwise outlive it as a cycle.
        observation, request.observation = request.observation, None
        if observation is not None:
            trace = request.trace
            if trace is not None and trace.is_sampled:
                self.exemplars[route, bin_of(seconds)] = Exemplar(trace.trace_id, seconds, time.time())
            outcome = Outcome(status, seconds, model, version, response)
            end_all(self.observers, observation, outcome)
