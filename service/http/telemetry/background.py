"""A thread that writes what requests leave behind, so that no request waits for a disk or a pipe.

Invariant: at most `max_items` and `max_bytes` wait; what is more is dropped and counted.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")
log = logging.getLogger(__name__)


class BackgroundWriter(Generic[Item]):
    """`write` is called on the thread with the items that have come, in their order; `put` from any thread."""

    def __init__(
        self, name: str, write: Callable[[list[Item]], None], *, interval_s: float, max_items: int, max_bytes: int
    ) -> None:
        """Items wait up to `interval_s` for others to be written with."""
        self.num_dropped = 0
        self._name = name
        self._write = write
        self._interval_s = interval_s
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._items: deque[tuple[Item, int]] = deque()
        self._num_bytes = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._has_failed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, item: Item, num_bytes: int) -> None:
        """Have the item written, or drop it if too many wait."""
        with self._lock:
            if len(self._items) >= self._max_items or self._num_bytes + num_bytes > self._max_bytes:
                self.num_dropped += 1
                return
            self._items.append((item, num_bytes))
            self._num_bytes += num_bytes

    def close(self, timeout_s: float = 2.0) -> None:
        """Write what waits, unless that takes too long."""
        self._closing.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._closing.wait(self._interval_s):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        with self._lock:
            items, self._items, self._num_bytes = self._items, deque(), 0
        try:
            self._write([item for item, _ in items])  # also of nothing: the writer may have a file to end
            if self._has_failed and items:
                log.info("%s is written again", self._name)
                self._has_failed = False
        except Exception as error:  # noqa: BLE001 - one bad item must not end the thread
            self.num_dropped += len(items)
            if not self._has_failed:
                log.error("%s cannot be written, so its items are dropped: %s", self._name, error)
            self._has_failed = True
