"""Slots are given in order; a slow load frees its fast slot or has to give up."""

import threading
import time
from contextlib import ExitStack

from service.engine.process.load_slots import PATIENCE_S, LoadSlots
from tests.service.engine.versions import wait_until


def test_slots_are_given_in_order_of_arrival() -> None:
    slots, order = LoadSlots(1), []
    tickets = [slots.fast.enter() for _ in range(4)]

    def load(number: int) -> None:
        with slots.hold_fast(tickets[number]):
            order.append(number)

    threads = [threading.Thread(target=load, args=(number,)) for number in (3, 1, 2, 0)]
    for thread in threads:
        thread.start()
        time.sleep(0.01)
    for thread in threads:
        thread.join(10)
    assert order == [0, 1, 2, 3]


def test_no_more_than_the_count_are_held() -> None:
    slots, held, peak, lock = LoadSlots(2), [0], [0], threading.Lock()

    def load(ticket: object) -> None:
        with slots.hold_fast(ticket):
            with lock:
                held[0] += 1
                peak[0] = max(peak[0], held[0])
            time.sleep(0.005)
            with lock:
                held[0] -= 1

    threads = [threading.Thread(target=load, args=(slots.fast.enter(),)) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert peak == [2]


def test_a_slow_load_moves_aside_while_a_slow_slot_is_free() -> None:
    slots = LoadSlots(1)
    with ExitStack() as stack:
        first = stack.enter_context(slots.hold_fast(slots.fast.enter()))
        assert not first.is_slow
        assert first.move_to_slow()
        assert first.is_slow
        assert first.move_to_slow(), "it may go on"
        second = stack.enter_context(slots.hold_fast(slots.fast.enter()))
        assert not second.move_to_slow(), "the slow slot is in use"
        assert not second.is_slow
    with slots.hold_fast(slots.fast.enter()) as third:
        assert third.move_to_slow(), "both slots were returned"


def test_a_load_waits_for_a_slow_slot() -> None:
    slots, events = LoadSlots(1), []

    def again() -> None:
        with slots.hold_slow() as slot:
            events.append(slot.is_slow)

    with slots.hold_fast(slots.fast.enter()) as slot:
        assert slot.move_to_slow()
        thread = threading.Thread(target=again)
        thread.start()
        time.sleep(0.05)
        assert events == []
    thread.join(10)
    assert events == [True]
    with slots.hold_fast(slots.fast.enter()) as slot:
        assert slot.move_to_slow(), "the slow slot was returned"


def test_an_exclusive_load_waits_for_all_others_and_lets_none_start() -> None:
    slots, events = LoadSlots(2), []
    with slots.hold_fast(slots.fast.enter()):
        exclusive, after = slots.fast.enter(), slots.fast.enter()

        def run(ticket: object, name: str, *, is_exclusive: bool) -> None:
            with slots.hold_fast(ticket, exclusive=is_exclusive):
                events.append(f"{name} begins")
                time.sleep(0.02)
                events.append(f"{name} ends")

        threads = [
            threading.Thread(target=run, args=(after, "after"), kwargs={"is_exclusive": False}),
            threading.Thread(target=run, args=(exclusive, "exclusive"), kwargs={"is_exclusive": True}),
        ]
        for thread in threads:
            thread.start()
        time.sleep(0.05)
        assert events == []
    for thread in threads:
        thread.join(10)
    assert events == ["exclusive begins", "exclusive ends", "after begins", "after ends"]


def test_an_abandoned_ticket_blocks_nobody() -> None:
    slots = LoadSlots(1)
    abandoned, next_one = slots.fast.enter(), slots.fast.enter()
    entered = threading.Event()

    def run() -> None:
        with slots.hold_fast(next_one):
            entered.set()

    thread = threading.Thread(target=run)
    thread.start()
    assert not entered.wait(0.05)
    slots.fast.abandon(abandoned)
    wait_until(entered.is_set)
    thread.join(10)


def test_a_load_on_request_counts_against_nothing() -> None:
    slots = LoadSlots(1)
    with slots.hold_fast(slots.fast.enter()):
        slot = slots.unlimited()
        assert slot.move_to_slow()
        slot.release()
    with slots.hold_fast(slots.fast.enter()) as another:
        assert another.move_to_slow()


def test_a_load_is_slow_after_the_documented_two_seconds() -> None:
    assert PATIENCE_S == 2.0
