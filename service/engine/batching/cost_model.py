"""Predicts the computing time of a batch from measured batches like it.

Measurements are kept in windows by (batch size, length), both rounded up to powers of two. Predictions are quantiles,
not means, because slow batches are what misses deadlines. A shape that was never measured is predicted from the nearest
measured one, scaled by padded size. Before the first measurement there is no prediction.
"""

from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass

from service.engine.metrics import Counters

WINDOW = 64
MEDIAN, SLOW = 0.5, 0.95


@dataclass(slots=True, kw_only=True)
class CostEstimate:
    """The cost of computing a request, given the queue that it would join."""

    counters: Counters  # of the model
    num_rows: int
    queued_rows: int  # that wait in the model's queue already
    work_s: float  # of computing all its rows
    batch_s: float  # of the slowest batch that its rows may be part of
    measured_at: float  # when a batch of the model was last measured


class Window:
    """The last `size` values that were added, and their exact quantiles."""

    __slots__ = ("_arrivals", "_cached", "_sorted")

    def __init__(self, size: int) -> None:
        self._arrivals: deque[float] = deque(maxlen=size)
        self._sorted: list[float] = []
        self._cached: dict[float, float] = {}  # quantiles computed since the last value was added

    def __len__(self) -> int:
        return len(self._sorted)

    def add(self, value: float) -> None:
        insort(self._sorted, value)
        if len(self._arrivals) == self._arrivals.maxlen:
            del self._sorted[bisect_left(self._sorted, self._arrivals[0])]
        self._arrivals.append(value)
        self._cached = {}

    def quantile(self, share: float) -> float:
        """The smallest value that `share` of all values do not exceed. Raises ValueError for an empty window."""
        cached = self._cached
        value = cached.get(share)
        if value is None:
            if not self._sorted:
                raise ValueError("the window is empty")
            value = cached[share] = self._sorted[min(int(share * len(self._sorted)), len(self._sorted) - 1)]
        return value


class CostModel:
    """Measurements of one session, all of them with steps or all without. One thread may read while another adds."""

    def __init__(self) -> None:
        self._windows: dict[tuple[int, int], Window] = {}
        self._nearest: dict[tuple[int, int], tuple[Window, float]] = {}  # cache of `_find_nearest`

    def observe(self, num_rows: int, num_steps: int, seconds: float) -> None:
        """A batch of `num_rows` rows took `seconds`, each row padded to `num_steps` steps (0: rows have one size)."""
        key = (num_rows - 1).bit_length(), (num_steps - 1).bit_length()
        window = self._windows.get(key)
        if window is None:
            window = Window(WINDOW)
            window.add(seconds)
            self._windows = {**self._windows, key: window}
            self._nearest = {}
        else:
            window.add(seconds)

    def predict(self, num_rows: int, num_steps: int, share: float) -> float | None:
        """Seconds within which a fraction `share` of such batches ends; None before the first measurement."""
        key = (num_rows - 1).bit_length(), (num_steps - 1).bit_length()
        nearest = self._nearest
        entry = nearest.get(key)
        if entry is None:
            if not self._windows:
                return None
            entry = nearest[key] = self._find_nearest(key)
        window, growth = entry
        return window.quantile(share) * growth

    def _find_nearest(self, key: tuple[int, int]) -> tuple[Window, float]:
        """The nearest measured window, and how many times longer than its batches a batch of this shape takes."""
        windows = self._windows
        nearest = min(windows, key=lambda other: abs(other[0] - key[0]) + abs(other[1] - key[1]))
        growth = max(key[0] - nearest[0] + key[1] - nearest[1], 0)  # a smaller batch may cost as much as a larger one
        return windows[nearest], float(2**growth)
