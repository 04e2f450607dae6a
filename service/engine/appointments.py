"""Who is refused is told when to come back, and is known again when coming back then.

A visitor is known by what it asks, so through any connection and proxy. As many are told the same moment as will ask
for at most `SHARE` of its capacity, if as many of them come as came lately. Not safe to share between threads.
"""

import math
from dataclasses import dataclass

SHARE = 0.5
MOMENT_S = 0.25
EARLY_S = 0.05
GRACE_S = 2.0  # clients round up, and take their time
LATEST_S = 60
MOST = 1 << 16  # that are remembered at a time
SAMPLE = 512
DOUBT = 8.0  # so many who came are assumed to begin with
FADES = 0.95  # how much less what happened a moment ago counts than what happens now


@dataclass(slots=True, eq=False)
class Visitor:
    """`body` as it came over the wire."""

    path: str
    body: bytes
    returns: bool = False  # as told

    def fingerprint(self) -> int:
        """Equal for those who ask the same; of large bodies only samples are looked at."""
        body = self.body
        if len(body) > 4 * SAMPLE:
            body = body[:SAMPLE] + body[:: len(body) // SAMPLE]
        return hash((self.path, len(self.body), body))


class Appointments:
    def __init__(self, slots: int) -> None:
        """`slots` is how many seconds of computing a second has."""
        self._room_s = slots * SHARE * MOMENT_S
        self._told: dict[int, dict[int, int]] = {}  # moment -> fingerprint -> how many
        self._work_s: dict[int, float] = {}  # moment -> that they asked for
        self._number = 0
        self._told_lately = self._came_lately = DOUBT
        self._forgotten_to = 0

    def __len__(self) -> int:
        return self._number

    @property
    def obedience(self) -> float:
        """The share of those told to come back who did, lately."""
        return min(self._came_lately / self._told_lately, 1.0)

    def make(self, now: float, fingerprint: int, work_s: float, wait_s: float) -> float:
        """In how many seconds a visitor with `work_s` who cannot be served for another `wait_s` should come back."""
        self._forget(now)
        first = max(math.ceil(wait_s), 1)
        share = self.obedience
        for seconds in range(first, LATEST_S):
            moment = int((now + seconds) / MOMENT_S)
            taken_s = self._work_s.get(moment, 0.0)
            if (taken_s + work_s) * share <= self._room_s or not taken_s:
                if self._number < MOST:
                    told = self._told.setdefault(moment, {})
                    told[fingerprint] = told.get(fingerprint, 0) + 1
                    self._work_s[moment] = taken_s + work_s
                    self._number += 1
                return float(seconds)
        return float(max(first, LATEST_S))

    def keep(self, now: float, fingerprint: int) -> bool:
        """Was a visitor like this told to come about now? Then one of them has."""
        for moment in range(int((now - GRACE_S) / MOMENT_S), int((now + EARLY_S) / MOMENT_S) + 1):
            told = self._told.get(moment)
            if told is not None and fingerprint in told:
                told[fingerprint] -= 1
                if not told[fingerprint]:
                    del told[fingerprint]
                self._number -= 1
                self._came_lately += 1
                self._told_lately += 1
                return True
        return False

    def _forget(self, now: float) -> None:
        """Those who have not come within the grace."""
        end = int((now - GRACE_S) / MOMENT_S)
        if end <= self._forgotten_to:
            return
        self._forgotten_to = end
        for moment in [moment for moment in self._told if moment < end]:
            missed = sum(self._told.pop(moment).values())
            self._work_s.pop(moment)
            self._number -= missed
            self._told_lately = self._told_lately * FADES + missed
            self._came_lately = self._came_lately * FADES
