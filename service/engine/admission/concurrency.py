"""Limits the number of texts generated at the same time: each holds memory from its first token to its last.

A request that finds no slot is refused at once, with a time to retry that is estimated from recent generations.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from service.engine.batching.cost_model import MEDIAN, Window
from service.errors import EkibenError


class ConcurrencyLimiter:
    """Safe to share between threads."""

    def __init__(self, max_rows: int) -> None:
        self.max_rows = max_rows
        self.num_rows = 0
        self._lock = threading.Lock()
        self._durations_s = Window(64)

    @contextmanager
    def acquire(self, num_rows: int) -> Iterator[None]:
        """Hold a slot per row in the block, or raise EkibenError overloaded; a request above the limit runs alone."""
        started_at = time.monotonic()
        with self._lock:
            if self.num_rows and self.num_rows + num_rows > self.max_rows:
                detail = f"already generating {self.num_rows} texts; the maximum is {self.max_rows}"
                raise EkibenError("overloaded", detail, retry_after_s=self._wait_s(num_rows))
            self.num_rows += num_rows
        try:
            yield
        finally:
            with self._lock:
                self.num_rows -= num_rows
                self._durations_s.add(time.monotonic() - started_at)

    def _wait_s(self, num_rows: int) -> float:
        """Slots become free one after the other, all of them in the time of one generation."""
        median_s = self._durations_s.quantile(MEDIAN) if len(self._durations_s) else 1.0
        return max(median_s * (self.num_rows + num_rows - self.max_rows) / self.max_rows, 1.0)
