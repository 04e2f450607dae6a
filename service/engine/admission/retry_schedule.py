"""Tells refused clients when to come back, and recognises those that do so on time.

A refusal names a time, and the schedule reserves computing for that time. At most `RETRY_SHARE` of the device is
promised for any slot of time, so clients that obey are spread out. A client is recognised by its connection (or by the
address that a trusted proxy forwards) and the route. Not safe to share between threads.
"""

import math
from typing import NamedTuple

from service.engine.batching.cost_model import CostEstimate

RETRY_SHARE = 0.5  # of the device, for clients that come back
SLOT_S = 0.25
EARLY_S = 0.05  # clocks differ: a client may come this much before its time
GRACE_S = 2.0  # clients round up: a client may come this much after its time
MAX_RETRY_AFTER_S = 60
MAX_RESERVATIONS = 1 << 16

Client = tuple[str, str]  # its address and the route


class Reservation(NamedTuple):
    at: float
    client: Client
    cost: CostEstimate  # of the request that was refused


class RetrySchedule:
    def __init__(self, slots: int) -> None:
        """`slots` is the number of batches that compute at the same time."""
        self._capacity_s = slots * RETRY_SHARE * SLOT_S
        self._by_client: dict[Client, Reservation] = {}
        self._by_slot: dict[int, dict[Client, Reservation]] = {}
        self._work_s: dict[int, float] = {}  # slot -> computing promised for it
        self._dropped_to = 0  # the first slot that may still hold reservations

    def __len__(self) -> int:
        """Clients with a reservation."""
        return len(self._by_client)

    def upcoming(self, client: Client, now: float) -> tuple[Reservation, float] | None:
        """The reservation of a client whose time has not come, and the whole seconds that are left, at least one."""
        reservation = self._by_client.get(client)
        if reservation is None or reservation.at - EARLY_S <= now:
            return None
        return reservation, float(max(math.ceil(reservation.at - now), 1))

    def reserve(self, now: float, client: Client, cost: CostEstimate, *, wait_s: float) -> float:
        """Whole seconds (at least `wait_s`) until the client should retry; it keeps a reservation until its time."""
        self.drop_expired(now)
        if upcoming := self.upcoming(client, now):
            return upcoming[1]
        self._cancel(client)
        first = max(math.ceil(wait_s), 1)
        for seconds in range(first, MAX_RETRY_AFTER_S):
            slot = int((now + seconds) / SLOT_S)
            promised_s = self._work_s.get(slot, 0.0)
            if not promised_s or promised_s + cost.work_s <= self._capacity_s:
                if len(self._by_client) < MAX_RESERVATIONS:
                    self._add(slot, Reservation(now + seconds, client, cost))
                return float(seconds)
        return float(max(first, MAX_RETRY_AFTER_S))

    def redeem(self, client: Client, now: float) -> Reservation | None:
        """The reservation of a client that comes on time; it holds for one request."""
        reservation = self._by_client.get(client)
        if reservation is None or not reservation.at - EARLY_S <= now <= reservation.at + GRACE_S:
            return None
        self._cancel(client)
        return reservation

    def drop_expired(self, now: float) -> None:
        """Forget the clients that did not come back within the grace period."""
        end = int((now - GRACE_S) / SLOT_S)
        if end <= self._dropped_to:
            return
        self._dropped_to = end
        for slot in [slot for slot in self._by_slot if slot < end]:
            for client in self._by_slot.pop(slot):
                del self._by_client[client]
            del self._work_s[slot]

    def _add(self, slot: int, reservation: Reservation) -> None:
        self._by_client[reservation.client] = reservation
        self._by_slot.setdefault(slot, {})[reservation.client] = reservation
        self._work_s[slot] = self._work_s.get(slot, 0.0) + reservation.cost.work_s

    def _cancel(self, client: Client) -> None:
        reservation = self._by_client.pop(client, None)
        if reservation is None:
            return
        slot = int(reservation.at / SLOT_S)
        members = self._by_slot[slot]
        del members[client]
        if members:
            self._work_s[slot] -= reservation.cost.work_s
        else:
            del self._by_slot[slot], self._work_s[slot]
