"""Work that runs ahead of who needs it."""

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

Item = TypeVar("Item")


@contextmanager
def ahead(items: Iterator[Item | None], depth: int, *, wait_s: float | None = None) -> Iterator[Iterator[Item]]:
    """The items, made from now on by a thread of their own, at most `depth` of them before they are asked for.

    None is left out. An error of the iterator is raised where its item would have come. The thread ends with the
    context, after the item that it is at; if that takes longer than `wait_s` it is left behind, to end by itself.
    """
    made: queue.Queue[tuple[Item] | BaseException | None] = queue.Queue(depth)
    stop = threading.Event()

    def put(entry: tuple[Item] | BaseException | None) -> None:
        while not stop.is_set():
            with suppress(queue.Full):
                made.put(entry, timeout=0.1)
                return

    def make() -> None:
        try:
            for item in items:
                if stop.is_set():
                    return
                if item is not None:
                    put((item,))
            put(None)
        except BaseException as error:  # noqa: BLE001 - raised again where the items are awaited
            put(error)

    def take() -> Iterator[Item]:
        while (entry := made.get()) is not None:
            if isinstance(entry, BaseException):
                raise entry
            yield entry[0]

    thread = threading.Thread(target=make, name="ahead", daemon=True)
    thread.start()
    try:
        yield take()
    finally:
        stop.set()
        thread.join(wait_s)
