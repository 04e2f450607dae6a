"""How many rows are being generated at a time: each holds memory from its first token to its last.

Whoever finds no seat is refused at once and told when one should be free, from how long generations took lately.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from service.engine.latency import USUAL, Window
from service.errors import EkibenError


class Seats:
    """Safe to share between threads."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.taken = 0
        self.refused = 0
        self._lock = threading.Lock()
        self._durations = Window(64)

    @contextmanager
    def take(self, num_rows: int) -> Iterator[None]:
        """Hold seats for as long as the block runs. Raises EkibenError overloaded if there are not enough."""
        began = time.monotonic()
        with self._lock:
            if self.taken and self.taken + num_rows > self.total:
                self.refused += 1
                raise EkibenError(
                    "overloaded",
                    f"{self.taken} texts are being generated, {self.total} at most",
                    retry_after_s=self._wait_s(num_rows),
                )
            self.taken += num_rows
        try:
            yield
        finally:
            with self._lock:
                self.taken -= num_rows
                self._durations.add(time.monotonic() - began)

    def _wait_s(self, num_rows: int) -> float:
        """Seats become free one after the other, all of them in the time of one generation."""
        usual_s = self._durations.quantile(USUAL) if len(self._durations) else 1.0
        return max(usual_s * (self.taken + num_rows - self.total) / self.total, 1.0)
