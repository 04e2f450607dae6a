"""Quantiles of the most recent measurements, exact, at a microsecond each."""

from bisect import bisect_left, insort
from collections import deque


class Window:
    """The last `size` values that were added."""

    __slots__ = ("_arrivals", "_sorted")

    def __init__(self, size: int) -> None:
        self._arrivals: deque[float] = deque(maxlen=size)
        self._sorted: list[float] = []

    def __len__(self) -> int:
        return len(self._sorted)

    def add(self, value: float) -> None:
        insort(self._sorted, value)
        if len(self._arrivals) == self._arrivals.maxlen:
            del self._sorted[bisect_left(self._sorted, self._arrivals[0])]
        self._arrivals.append(value)

    def quantile(self, share: float) -> float:
        """The smallest value that `share` of all values do not exceed, such as 0.99 of them."""
        if not self._sorted:
            raise ValueError("no value was added")
        return self._sorted[min(int(share * len(self._sorted)), len(self._sorted) - 1)]
