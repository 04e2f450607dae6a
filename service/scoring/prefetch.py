"""Items of an iterator, produced by a thread before they are asked for."""

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

Item = TypeVar("Item")


@contextmanager
def prefetch(
    items: Iterator[Item | None], depth: int, *, join_timeout_s: float | None = None
) -> Iterator[Iterator[Item]]:
    """Produce the items on a thread of their own, at most `depth` of them before they are asked for.

    Items that are None are left out. An error of the iterator is raised in place of the item it prevented. When the
    context ends, the thread stops after the item it is producing; the caller waits at most `join_timeout_s` for that.
    """
    ready: queue.Queue[Item | BaseException | None] = queue.Queue(depth)
    stop = threading.Event()

    def put(entry: Item | BaseException | None) -> None:
        while not stop.is_set():
            with suppress(queue.Full):
                ready.put(entry, timeout=0.1)
                return

    def produce() -> None:
        try:
            for item in items:
                if stop.is_set():
                    return
                if item is not None:
                    put(item)
            put(None)
        except BaseException as error:  # noqa: BLE001 - consume() raises it again
            put(error)

    def consume() -> Iterator[Item]:
        while (entry := ready.get()) is not None:
            if isinstance(entry, BaseException):
                raise entry
            yield entry

    thread = threading.Thread(target=produce, name="prefetch", daemon=True)
    thread.start()
    try:
        yield consume()
    finally:
        stop.set()
        thread.join(join_timeout_s)
