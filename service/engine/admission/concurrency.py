"""How many texts are generated at the same time: each holds memory from its first token to its last.

A request that finds no slot is refused at once and told when one should be free, from how long generations took lately.
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
        """Hold a slot for each row while the block runs. Raises EkibenError overloaded if there are not enough.

        A request that is larger than the limit runs when it is the only one.
        """
        started_at = time.monotonic()
        with self._lock:
            if self.num_rows and self.num_rows + num_rows > self.max_rows:
                detail = f"{self.num_rows} texts are being generated, {self.max_rows} at most"
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
