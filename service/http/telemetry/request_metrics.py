"""Counts and durations of the HTTP requests of this process, by route and status."""

import threading
from collections import Counter, defaultdict

from service.engine.metrics import Histogram


class RequestMetrics:
    """`responses` counts by (route, status), where 499 stands for a client that disconnected before the response."""

    def __init__(self) -> None:
        self.in_flight = 0  # inference requests in progress; only the event loop writes it
        self.responses: Counter[tuple[str, int]] = Counter()
        self.durations: defaultdict[str, Histogram] = defaultdict(Histogram)
        self._lock = threading.Lock()

    def record(self, route: str, status: int, seconds: float) -> None:
        """Count one response. Thread-safe."""
        with self._lock:
            self.responses[route, status] += 1
            self.durations[route].add(seconds)
