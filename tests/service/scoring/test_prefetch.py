"""Items are produced ahead up to the depth, and the thread ends with the context."""

import threading
import time
from collections.abc import Iterator

import pytest

from service.scoring.prefetch import prefetch


def test_items_keep_their_order() -> None:
    with prefetch(iter(range(100)), 3) as found:
        assert list(found) == list(range(100))


def test_error_is_raised_in_place_of_its_item() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("two")

    with prefetch(items(), 5) as found:
        assert next(found) == 1
        with pytest.raises(KeyError, match="two"):
            next(found)


def test_at_most_depth_items_are_prefetched() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for i in range(100):
            made.append(i)
            yield i

    with prefetch(items(), 2) as found:
        assert next(found) == 0
        time.sleep(0.1)
        assert len(made) <= 5


def test_thread_starts_at_once_and_ends_with_the_context() -> None:
    made_on: list[threading.Thread] = []
    started = threading.Event()

    def items() -> Iterator[int]:
        made_on.append(threading.current_thread())
        started.set()
        yield from range(10**9)

    with prefetch(items(), 2):
        assert started.wait(20)
        assert made_on[0].is_alive()
    assert not made_on[0].is_alive()


def test_thread_that_yields_only_none_ends_with_the_context() -> None:
    threads: list[threading.Thread] = []

    def items() -> Iterator[int | None]:
        threads.append(threading.current_thread())
        while True:
            yield None

    with prefetch(items(), 2):
        while not threads:
            time.sleep(0.001)
    assert not threads[0].is_alive()


def test_thread_that_does_not_end_is_not_awaited_beyond_the_timeout() -> None:
    hangs, threads_end = threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        hangs.set()
        threads_end.wait(20)
        yield 1

    with prefetch(items(), 2, join_timeout_s=0.01):
        assert hangs.wait(20)
    assert not threads_end.is_set()
    threads_end.set()
