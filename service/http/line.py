"""The line before a request is read: how long granian's one thread and the event loop take to come to what is there.

The thread brings requests, then their bodies, in the order they came. What is in its line is granian's own and cannot
be counted, so a marker goes the same way: a future of granian's, cancelled at once, is dropped by that thread when its
turn comes, and with it what it was cancelled with. No client has a part in that, so none can make the line look longer.
"""

import time
from typing import Any

EVERY_S = 0.002  # at most so often
LOST_S = 2.0  # a marker that takes longer will never come
LONG_S = 0.005
SPAN_S = 0.5  # of time that is looked back on
AT_ONCE = 0.25  # of that a single marker says at most: a pause is no line
STANDS, ENDS = 0.6, 0.2  # a line stands if it was long for more of it than this, until it was for less


class Line:
    """Used by granian's thread alone, which also brings the markers back."""

    def __init__(self) -> None:
        self._sent_at = 0.0  # of the marker under way; 0: there is none
        self._back_at = 0.0
        self._took_s = 0.0
        self._behind_s = 0.0
        self._share = 0.0  # of the time just past that the line was long
        self._stands = False

    def look(self, protocol: Any, now: float, behind_s: float) -> float:
        """How long whoever joins a line that does not get shorter will wait; 0 if there is none.

        `protocol` is granian's end of a request that is not answered yet, `behind_s` how far the event loop is behind.
        """
        self._behind_s = behind_s
        wait_s = max(self._measure(protocol, now), behind_s)
        return wait_s if self._stands and wait_s >= LONG_S else 0.0

    def _measure(self, protocol: Any, now: float) -> float:
        if self._sent_at:
            under_way_s = now - self._sent_at
            if under_way_s < LOST_S:
                return max(under_way_s, self._took_s)
            self._sent_at = self._took_s = 0.0
        elif now - self._back_at > max(self._took_s, EVERY_S):
            self._took_s = 0.0
        if now - self._back_at >= EVERY_S:
            self._sent_at = now
            protocol.client_disconnect().cancel(Marker(self))
        return self._took_s

    def back(self, now: float) -> None:
        if not self._sent_at:
            return
        long = max(now - self._sent_at, self._behind_s) >= LONG_S
        if self._sent_at - self._back_at > SPAN_S:
            self._share = 0.0  # nobody has come meanwhile
        weight = min((now - self._back_at) / SPAN_S, AT_ONCE)
        self._share += weight * (long - self._share)
        self._stands = self._share > (ENDS if self._stands else STANDS)
        self._took_s, self._sent_at, self._back_at = now - self._sent_at, 0.0, now


class Marker:
    __slots__ = ("_line",)

    def __init__(self, line: Line) -> None:
        self._line = line

    def __del__(self) -> None:
        self._line.back(time.monotonic())
