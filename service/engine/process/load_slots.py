"""Bound how many loads run at the same time, so that a slow one delays the others for seconds at most.

A load holds a fast slot. One that is still running after `PATIENCE_S` moves to a slow slot, and frees its fast one; if
no slow slot is free, it has to give up and wait for one. Invariant: the slots of a kind are given in order of arrival,
and however many loads hang, no load waits longer than `PATIENCE_S` for each load that arrived before it.
"""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE_S = 2.0


class _Queue:
    """A semaphore that is given in order of arrival."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._held = 0
        self._tickets: deque[object] = deque()
        self._changed = threading.Condition()

    def enter(self) -> object:
        """Take a place in the queue, for `acquire` or `abandon`."""
        ticket = object()
        with self._changed:
            self._tickets.append(ticket)
        return ticket

    def acquire(self, ticket: object, size: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._tickets[0] is ticket and self._held + size <= self._count)
            self._tickets.popleft()
            self._held += size
            self._changed.notify_all()

    def abandon(self, ticket: object) -> None:
        with self._changed:
            self._tickets.remove(ticket)
            self._changed.notify_all()

    def try_acquire(self) -> bool:
        with self._changed:
            if self._tickets or self._held >= self._count:
                return False
            self._held += 1
            return True

    def release(self, size: int) -> None:
        with self._changed:
            self._held -= size
            self._changed.notify_all()


class Slot:
    """What one load holds; `size` is 0 for a load that was asked for and waits for no other."""

    def __init__(self, slots: "LoadSlots", *, is_slow: bool, size: int) -> None:
        self._slots = slots
        self._size = size
        self.is_slow = is_slow

    def move_to_slow(self) -> bool:
        """Exchange a fast slot for a slow one if one is free; return whether the load may go on."""
        if not self.is_slow and self._slots.slow.try_acquire():
            self._slots.fast.release(self._size)
            self.is_slow, self._size = True, 1
        return self.is_slow

    def release(self) -> None:
        (self._slots.slow if self.is_slow else self._slots.fast).release(self._size)


class LoadSlots:
    """`count` fast slots and as many slow ones."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.fast = _Queue(count)
        self.slow = _Queue(count)

    def unlimited(self) -> Slot:
        """Return a slot that counts against nothing and has no time limit."""
        return Slot(self, is_slow=True, size=0)

    @contextmanager
    def hold_fast(self, ticket: object, *, exclusive: bool = False) -> Iterator[Slot]:
        """Wait for the turn of this ticket and hold a slot; `exclusive`: all of them, so nothing else is loaded."""
        size = self._count if exclusive else 1
        self.fast.acquire(ticket, size)
        slot = Slot(self, is_slow=False, size=size)
        try:
            yield slot
        finally:
            slot.release()

    @contextmanager
    def hold_slow(self) -> Iterator[Slot]:
        """Wait for a slow slot and hold it."""
        self.slow.acquire(self.slow.enter(), 1)
        slot = Slot(self, is_slow=True, size=1)
        try:
            yield slot
        finally:
            slot.release()
