"""How long a batch will take, from how long batches like it took.

One window of measurements for each (batch bucket, length bucket), both powers of two, and quantiles of it, not means: a
deadline is missed by the slow ones. A shape that was never measured is foretold from the nearest one that was, in
proportion to their padded sizes; before the first measurement nothing is foretold.
"""

from service.engine.quantiles import Window

WINDOW = 64
USUAL, LATE = 0.5, 0.95


class Latency:
    """Measurements of one session. May be read while another thread adds."""

    def __init__(self) -> None:
        self._windows: dict[tuple[int, int], Window] = {}
        self._foretold: dict[tuple[int, int, float], float] = {}

    def observe(self, num_rows: int, num_steps: int, seconds: float) -> None:
        """A batch of `num_rows` rows, padded to `num_steps` steps each (0: no such axis), took `seconds`."""
        key = _bucket(num_rows), _bucket(num_steps)
        if key not in self._windows:
            self._windows[key] = Window(WINDOW)
        self._windows[key].add(seconds)
        if self._foretold:
            self._foretold = {}

    def foretell(self, num_rows: int, num_steps: int, share: float) -> float | None:
        """The seconds within which `share` of such batches are done, or None if nothing was ever measured."""
        key = _bucket(num_rows), _bucket(num_steps)
        seconds = self._foretold.get((*key, share))
        if seconds is None:
            seconds = self._look(key, share)
            if seconds is not None:
                self._foretold[*key, share] = seconds
        return seconds

    def _look(self, key: tuple[int, int], share: float) -> float | None:
        windows = self._windows
        if key in windows:
            return windows[key].quantile(share)
        if not windows:
            return None
        nearest = min(list(windows), key=lambda other: abs(other[0] - key[0]) + abs(other[1] - key[1]))
        growth = max(key[0] - nearest[0] + key[1] - nearest[1], 0)  # a smaller batch may cost as much as a larger one
        return windows[nearest].quantile(share) * float(2**growth)


def _bucket(number: int) -> int:
    """0 for 0, 1 for 1, 2 for 2, 3 for 3 and 4, 4 for 5 to 8, ..."""
    return (number - 1).bit_length() + 1 if number else 0
