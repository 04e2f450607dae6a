"""How long a batch will take, from how long batches like it took.

One window of measurements for each (batch bucket, length bucket), both powers of two, and quantiles of it, not means: a
deadline is missed by the slow ones. A shape that was never measured is foretold from the nearest one that was, in
proportion to their padded sizes; before the first measurement nothing is foretold.
"""

from bisect import bisect_left, insort
from collections import deque

WINDOW = 64
USUAL, LATE = 0.5, 0.95


class Window:
    """The last `size` values that were added, and their exact quantiles."""

    __slots__ = ("_arrivals", "_known", "_sorted")

    def __init__(self, size: int) -> None:
        self._arrivals: deque[float] = deque(maxlen=size)
        self._sorted: list[float] = []
        self._known: dict[float, float] = {}  # quantiles that were asked for since the last value came

    def __len__(self) -> int:
        return len(self._sorted)

    def add(self, value: float) -> None:
        insort(self._sorted, value)
        if len(self._arrivals) == self._arrivals.maxlen:
            del self._sorted[bisect_left(self._sorted, self._arrivals[0])]
        self._arrivals.append(value)
        self._known = {}

    def quantile(self, share: float) -> float:
        """The smallest value that `share` of all values do not exceed, such as 0.99 of them."""
        known = self._known
        value = known.get(share)
        if value is None:
            if not self._sorted:
                raise ValueError("no value was added")
            value = known[share] = self._sorted[min(int(share * len(self._sorted)), len(self._sorted) - 1)]
        return value


class Latency:
    """Measurements of one session, all of them with steps or all without. May be read while another thread adds."""

    def __init__(self) -> None:
        self._windows: dict[tuple[int, int], Window] = {}
        self._nearest: dict[tuple[int, int], tuple[Window, float]] = {}  # by which windows a bucket is foretold

    def observe(self, num_rows: int, num_steps: int, seconds: float) -> None:
        """A batch of `num_rows` rows, padded to `num_steps` steps each (0: all of one size), took `seconds`."""
        key = (num_rows - 1).bit_length(), (num_steps - 1).bit_length()
        window = self._windows.get(key)
        if window is None:
            window = Window(WINDOW)
            window.add(seconds)
            self._windows = {**self._windows, key: window}
            self._nearest = {}
        else:
            window.add(seconds)

    def foretell(self, num_rows: int, num_steps: int, share: float) -> float | None:
        """The seconds within which `share` of such batches are done, or None if nothing was ever measured."""
        key = (num_rows - 1).bit_length(), (num_steps - 1).bit_length()
        nearest = self._nearest
        found = nearest.get(key)
        if found is None:
            if not self._windows:
                return None
            found = nearest[key] = self._find(key)
        window, growth = found
        return window.quantile(share) * growth

    def _find(self, key: tuple[int, int]) -> tuple[Window, float]:
        """The window nearest to this bucket, and how many times longer than there a batch takes here."""
        windows = self._windows
        nearest = min(windows, key=lambda other: abs(other[0] - key[0]) + abs(other[1] - key[1]))
        growth = max(key[0] - nearest[0] + key[1] - nearest[1], 0)  # a smaller batch may cost as much as a larger one
        return windows[nearest], float(2**growth)
