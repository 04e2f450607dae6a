"""The line that requests wait in before anybody reads them: how long who joins it now will wait.

granian's thread brings requests and then their bodies in the order they came. So a body that came with its request is
behind everything that came before it, and the time until it is here says how long the line is. Invariant: a client who
is slow, or has much to send, does not make the line look any longer.
"""

from collections import deque
from typing import Protocol

STEP = 1.05  # by which a measurement moves the median
LEAST_S = 1e-6
RECENT = 8  # the shortest wait of so many counts: a slow client among them does not


class Waiting(Protocol):
    came: float  # as `time.monotonic` says
    place: int  # from one on; 0: not in the line


class Line:
    """Joined and asked on one thread, left on another."""

    def __init__(self) -> None:
        self._joined = self._left = 0  # each written by one thread
        self._each_s = LEAST_S  # that one waits for each in the line, in the median
        self._recent_s: deque[float] = deque((0.0,), maxlen=RECENT)
        self._served_at = 0.0

    def wait_s(self, now: float) -> float:
        """How long who joins now will wait; what somebody has just waited takes as long to be gone."""
        wait_s = (self._joined - self._left) * self._each_s
        recent_s = min(self._recent_s)
        return recent_s if recent_s > wait_s and now - self._served_at < recent_s else wait_s

    def join(self, request: Waiting) -> None:
        request.place = self._joined - self._left + 1
        self._joined += 1

    def served(self, request: Waiting, now: float) -> None:
        """Its turn has come."""
        if request.place:
            wait_s = now - request.came
            self._recent_s.append(wait_s)
            self._served_at = now
            longer = wait_s > request.place * self._each_s
            self._each_s = self._each_s * STEP if longer else max(self._each_s / STEP, LEAST_S)
            self.leave(request)

    def leave(self, request: Waiting) -> None:
        """It waits no longer, or for something else."""
        if request.place:
            request.place = 0
            self._left += 1
