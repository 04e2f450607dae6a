"""What went through the door of this process, counted by route and status: a dictionary entry or two a request."""

import threading
from collections import Counter

from service.engine.counters import Histogram


class Traffic:
    """`in_flight`: work that was let in and is not answered yet, written by the event loop alone."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.answers: Counter[tuple[str, int]] = Counter()  # (route, status); 499: the client left before
        self.seconds: dict[str, Histogram] = {}
        self._lock = threading.Lock()

    def count(self, route: str, status: int, seconds: float) -> None:
        """May be called from any thread."""
        with self._lock:
            self.answers[route, status] += 1
            histogram = self.seconds.get(route)
            if histogram is None:
                histogram = self.seconds[route] = Histogram()
            histogram.add(seconds)
