"""Who is refused is told when to come back, and is known again when coming back then.

As many are told the same moment as will ask for at most `SHARE` of its capacity, if as many of them come as came
lately. Who comes before that is told the same again. Not safe to share between threads, but for looking one up.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

SHARE = 0.5
MOMENT_S = 0.25
EARLY_S = 0.05
GRACE_S = 2.0  # clients round up, and take their time
LATEST_S = 60
MOST = 1 << 16  # that are remembered at a time
DOUBT = 8.0  # so many who came are assumed to begin with
FADES = 0.95  # how much less what happened a moment ago counts than what happens now
SAMPLE = 512

Fingerprints = tuple[int, ...]


@dataclass(slots=True, eq=False)
class Visitor:
    """Somebody who asks: until anybody has read what, known by where it asks from, then by what it asks.

    `address` is that of its connection, or what a proxy says; `body` is as it came over the wire; `due_s` seconds of
    computing are kept for it until it is known what it takes.
    """

    path: str
    address: str
    deadline: float
    body: bytes | None = None
    returns: bool = False  # as told
    due_s: float = 0.0
    crowded: bool = False  # in a long line, and nobody there knew what it asks for

    def fingerprints(self) -> Fingerprints:
        """By each of them it may be known again; of large bodies only samples are looked at."""
        address, body = by_address(self.path, self.address), self.body
        if body is None:
            return (address,)
        sample = body if len(body) <= 4 * SAMPLE else body[:SAMPLE] + body[:: len(body) // SAMPLE]
        return address, hash((self.path, len(body), sample))


def by_address(path: str, address: str) -> int:
    return hash((path, address))


class Appointment(NamedTuple):
    at: float
    work_s: float
    fingerprints: Fingerprints
    kept: bool = False


class Appointments:
    """Visitors are known by any of their fingerprints."""

    def __init__(self, slots: int) -> None:
        """`slots` is how many seconds of computing a second has."""
        self._room_s = slots * SHARE * MOMENT_S
        self._told: dict[int, Appointment] = {}  # by fingerprint
        self._moments: dict[int, set[Appointment]] = {}
        self._work_s: dict[int, float] = {}  # moment -> that those who were told so asked for
        self._told_lately = self._came_lately = DOUBT
        self._forgotten_to = 0

    def __len__(self) -> int:
        """How many fingerprints are remembered."""
        return len(self._told)

    def __contains__(self, fingerprint: int) -> bool:
        """Was this visitor refused lately?"""
        return fingerprint in self._told

    def ahead_s(self, fingerprint: int, now: float) -> float:
        """In how many whole seconds, at least one, this visitor was told to come; 0: it was not, or may come now."""
        appointment = self._told.get(fingerprint)
        if appointment is None or appointment.at - EARLY_S <= now:
            return 0.0
        return float(max(math.ceil(appointment.at - now), 1))

    @property
    def obedience(self) -> float:
        """The share of those told to come back who did, lately."""
        return min(self._came_lately / self._told_lately, 1.0)

    def make(self, now: float, fingerprints: Fingerprints, work_s: float, wait_s: float) -> float:
        """In how many seconds a visitor with `work_s` who cannot be served for another `wait_s` should come back."""
        self._forget(now)
        for fingerprint in fingerprints:
            if ahead_s := self.ahead_s(fingerprint, now):
                return ahead_s
        self._told_lately += self._cancel(fingerprints)
        first = max(math.ceil(wait_s), 1)
        share = self.obedience
        for seconds in range(first, LATEST_S):
            moment = int((now + seconds) / MOMENT_S)
            taken_s = self._work_s.get(moment, 0.0)
            if (taken_s + work_s) * share <= self._room_s or not self._moments.get(moment):
                if len(self._told) < MOST:
                    self._add(Appointment(now + seconds, work_s, fingerprints))
                return float(seconds)
        return float(max(first, LATEST_S))

    def keep(self, now: float, fingerprints: Fingerprints) -> bool:
        """Was this visitor told to come about now? Then it has."""
        for fingerprint in fingerprints:
            appointment = self._told.get(fingerprint)
            if appointment is None or appointment.kept:
                continue
            if appointment.at - EARLY_S <= now <= appointment.at + GRACE_S:
                self._cancel((fingerprint,))
                self._add(Appointment(now, 0.0, appointment.fingerprints, kept=True))
                self._came_lately += 1
                self._told_lately += 1
                return True
        return False

    def _add(self, appointment: Appointment) -> None:
        moment = int(appointment.at / MOMENT_S)
        self._told.update(dict.fromkeys(appointment.fingerprints, appointment))
        self._moments.setdefault(moment, set()).add(appointment)
        self._work_s[moment] = self._work_s.get(moment, 0.0) + appointment.work_s

    def _cancel(self, fingerprints: Fingerprints) -> int:
        """What these visitors were told holds no longer; returns how many of them had not come yet."""
        found = {self._told[fingerprint] for fingerprint in fingerprints if fingerprint in self._told}
        for appointment in found:
            moment = int(appointment.at / MOMENT_S)
            self._moments[moment].discard(appointment)
            self._work_s[moment] -= appointment.work_s
            self._drop(appointment)
        return sum(not appointment.kept for appointment in found)

    def _drop(self, appointment: Appointment) -> None:
        for fingerprint in appointment.fingerprints:
            del self._told[fingerprint]

    def _forget(self, now: float) -> None:
        """Those who have not come within the grace."""
        end = int((now - GRACE_S) / MOMENT_S)
        if end <= self._forgotten_to:
            return
        self._forgotten_to = end
        for moment in [moment for moment in self._moments if moment < end]:
            missed = self._moments.pop(moment)
            self._work_s.pop(moment)
            for appointment in missed:
                self._drop(appointment)
            self._told_lately = self._told_lately * FADES + sum(not appointment.kept for appointment in missed)
            self._came_lately = self._came_lately * FADES
