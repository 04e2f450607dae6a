"""Whether a request may wait until rows of other requests have ended, or is refused at once."""

import time
from collections import deque
from statistics import median

from service.engine.context import RequestContext
from service.engine.limits import Limits
from service.errors import EkibenError


class GenerationQueue:
    """Predicts waiting times from the durations of recent rows. Not thread-safe."""

    def __init__(self, limits: Limits) -> None:
        self._max_rows, self._max_waiting = limits.max_generations, limits.max_queue_items
        self._durations_s = deque[float](maxlen=64)

    def record(self, seconds: float) -> None:
        """Record the time that a row took from its start to its end."""
        self._durations_s.append(seconds)

    def check(self, num_rows: int, num_ahead: int, context: RequestContext) -> None:
        """Raise EkibenError overloaded if rows with so many ahead of them would hardly end before their deadline.

        Rows that find no others are always admitted.
        """
        num_over = num_rows + num_ahead - self._max_rows
        if not num_ahead or num_over <= 0:
            return
        median_s = median(self._durations_s) if self._durations_s else 0.0
        # Places become free one after the other, all of them in the time of one row.
        wait_s = median_s * num_over / self._max_rows
        if num_over > self._max_waiting or wait_s + median_s > context.deadline - time.monotonic():
            detail = f"{num_ahead} texts are being generated or wait; the maximum at a time is {self._max_rows}"
            raise EkibenError("overloaded", detail, retry_after_s=max(wait_s, 1.0))
