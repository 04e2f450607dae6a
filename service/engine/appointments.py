"""Who is refused is told when to come back, and is let in when coming back then.

A refused item gets the first whole second from now for which room can be promised; at most `SHARE` of the capacity of
any moment is, so the return of the refused is spread and does not become the next overload. New items leave that room
free. Who comes back is known by what it asks for: the same inputs. Not safe to share between threads.
"""

import math
from collections import defaultdict, deque

SHARE = 0.5
MOMENT_S = 0.125
EARLY_S = 0.05
GRACE_S = 2.0  # clients round up, and take their time
LATEST_S = 60
MOST = 1 << 16  # that are kept at a time


class Appointments:
    def __init__(self, slots: int) -> None:
        """`slots` is how many seconds of computing a second has."""
        self._room_s = slots * SHARE * MOMENT_S
        self._promised: defaultdict[int, float] = defaultdict(float)  # moment -> seconds of computing
        self._due: dict[int, deque[tuple[float, float]]] = {}  # fingerprint -> when, seconds of computing
        self._moments: dict[int, list[int]] = {}  # moment -> fingerprints, to forget those that never came
        self._kept = 0
        self._forgotten_to = 0

    def __len__(self) -> int:
        return self._kept

    def make(self, now: float, fingerprint: int, work_s: float, wait_s: float) -> float:
        """In how many seconds an item of `work_s` that cannot be answered for another `wait_s` should come back."""
        first = max(math.ceil(wait_s), 1)
        if self._kept < MOST:
            for seconds in range(first, LATEST_S):
                moment = int((now + seconds) / MOMENT_S)
                if self._promised.get(moment, 0.0) + work_s <= self._room_s or moment not in self._promised:
                    self._promised[moment] += work_s
                    self._due.setdefault(fingerprint, deque()).append((now + seconds, work_s))
                    self._moments.setdefault(moment, []).append(fingerprint)
                    self._kept += 1
                    return float(seconds)
        return float(max(first, LATEST_S))

    def keep(self, now: float, fingerprint: int) -> bool:
        """Has this item an appointment, and comes when it was told to? Then the appointment is over."""
        due = self._due.get(fingerprint)
        if not due or due[0][0] - EARLY_S > now:
            return False
        when, work_s = self._pop(fingerprint, due)
        self._promised[int(when / MOMENT_S)] -= work_s
        return now <= when + GRACE_S

    def promised_s(self, now: float) -> float:
        """Seconds of computing for those who were told to come about now and have not come yet."""
        self._forget(now)
        first, last = int((now - GRACE_S) / MOMENT_S), int(now / MOMENT_S) + 1
        return max(sum(self._promised.get(moment, 0.0) for moment in range(first, last + 1)), 0.0)

    def _forget(self, now: float) -> None:
        end = int((now - GRACE_S) / MOMENT_S)
        if end <= self._forgotten_to:
            return
        self._forgotten_to = end
        for moment in [moment for moment in self._moments if moment < end]:
            self._promised.pop(moment, None)
            for fingerprint in self._moments.pop(moment):
                due = self._due.get(fingerprint)
                if due and due[0][0] < end * MOMENT_S:
                    self._pop(fingerprint, due)

    def _pop(self, fingerprint: int, due: deque[tuple[float, float]]) -> tuple[float, float]:
        self._kept -= 1
        first = due.popleft()
        if not due:
            del self._due[fingerprint]
        return first
