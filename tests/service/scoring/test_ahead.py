"""Working ahead, no further than asked, and stopping when nobody wants more."""

import threading
import time
from collections.abc import Iterator

import pytest

from service.scoring.ahead import ahead


def test_items_come_in_order() -> None:
    with ahead(iter(range(100)), 3) as found:
        assert list(found) == list(range(100))


def test_an_error_comes_where_its_item_would_have() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("two")

    with ahead(items(), 5) as found:
        assert next(found) == 1
        with pytest.raises(KeyError, match="two"):
            next(found)


def test_no_more_than_the_depth_is_made_before_it_is_wanted() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for i in range(100):
            made.append(i)
            yield i

    with ahead(items(), 2) as found:
        assert next(found) == 0
        time.sleep(0.1)
        assert len(made) <= 5


def test_it_begins_before_anybody_asks_and_ends_with_the_context() -> None:
    made_on: list[threading.Thread] = []
    began = threading.Event()

    def items() -> Iterator[int]:
        made_on.append(threading.current_thread())
        began.set()
        yield from range(10**9)

    with ahead(items(), 2):
        assert began.wait(20)
        assert made_on[0].is_alive()
    assert not made_on[0].is_alive()


def test_a_thread_that_has_nothing_to_give_ends_all_the_same() -> None:
    threads: list[threading.Thread] = []

    def items() -> Iterator[int | None]:
        threads.append(threading.current_thread())
        while True:
            yield None

    with ahead(items(), 2):
        while not threads:
            time.sleep(0.001)
    assert not threads[0].is_alive()


def test_a_thread_that_does_not_end_is_left_behind() -> None:
    hangs, ends = threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        hangs.set()
        ends.wait(20)
        yield 1

    with ahead(items(), 2, wait_s=0.01):
        assert hangs.wait(20)
    assert not ends.is_set()
    ends.set()
