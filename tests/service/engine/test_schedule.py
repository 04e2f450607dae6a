"""The earliest deadline of all sources comes next; a call hands over what it gives or raises, unless nobody waits."""

import asyncio
from typing import Any

import pytest

from service.engine.admission import Admission
from service.engine.batch import Batch
from service.engine.batcher import Batcher
from service.engine.counters import Counters
from service.engine.layout import Layout
from service.engine.limits import Limits
from service.engine.request import Request
from service.engine.schedule import Call, Schedule
from tests.service.engine.fakes import LOOP, FakeSession, rows

SESSION = FakeSession()
OTHER = asyncio.new_event_loop()
OTHER.close()


def call(deadline: float) -> Call:
    return Call(print, (), LOOP, deadline)


def batcher(*deadlines: float, seconds: float | None = None) -> Batcher:
    queue = Batcher(Layout(SESSION.manifest), Limits(max_batch_items=1), Counters(model="m", version="1"), Admission(1))
    if seconds is not None:
        queue.latency.observe(1, 5, seconds)
    for deadline in deadlines:
        request = Request(
            SESSION,  # type: ignore[arg-type]
            queue,
            rows(5),
            None,
            num_rows=1,
            items="",
            arrived=0.0,
            deadline=deadline,
            loop=LOOP,
        )
        for piece in queue.pieces(request):
            queue.push(piece)
    return queue


def deadlines(schedule: Schedule) -> list[float]:
    found = []
    while (job := schedule.next_job(0.0)) is not None:
        found.append(job.pieces[0].request.deadline if isinstance(job, Batch) else job.deadline)
    return found


def test_the_earliest_deadline_of_all_comes_next() -> None:
    schedule = Schedule()
    assert not schedule
    for source in (call(2.5), batcher(4, 2), batcher(1, 5, 3), call(0.5)):
        schedule.add(source)
    assert schedule
    assert deadlines(schedule) == [0.5, 1, 2, 2.5, 3, 4, 5]
    assert not schedule


def test_calls_whose_caller_is_gone_are_passed_over() -> None:
    schedule, gone = Schedule(), call(1)
    schedule.add(gone)
    schedule.add(call(2))
    gone.settled()
    assert deadlines(schedule) == [2]


def test_only_quick_batches_are_for_the_event_loop() -> None:
    schedule = Schedule()
    for source in (batcher(1, seconds=0.5), batcher(2, seconds=0.0001), batcher(0.5), call(0.1)):
        schedule.add(source)
    batch = schedule.next_batch(0.0, 0.001)
    assert batch is not None
    assert batch.pieces[0].request.deadline == 2
    assert schedule.next_batch(0.0, 0.001) is None
    assert deadlines(schedule) == [0.1, 0.5, 1]


def test_clearing_tells_who_waited() -> None:
    schedule, waiting = Schedule(), call(1)
    schedule.add(waiting)
    schedule.add(batcher(1, 2))
    dropped = schedule.clear()
    assert waiting in dropped
    assert len(dropped) == 3
    assert deadlines(schedule) == []


def outcome(function: Any, *args: Any, leave: bool = False) -> Any:
    async def scenario() -> Any:
        call = Call(function, args, asyncio.get_running_loop(), deadline=9.0)
        if leave:
            call.settled()
        call.run()()
        return await call.future if call.future.done() else "nothing"

    return asyncio.run(scenario())


def test_results_and_errors_of_a_call_are_handed_over() -> None:
    assert outcome(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        outcome(divmod, 7, 0)


def test_nothing_is_done_for_who_is_gone() -> None:
    done: list[int] = []
    assert outcome(done.append, 1, leave=True) == "nothing"
    assert done == []


def test_an_answer_after_the_deadline_is_dropped() -> None:
    async def scenario() -> None:
        call = Call(lambda: "late", (), asyncio.get_running_loop(), deadline=9.0)
        hand_over = call.run()
        call.fail(TimeoutError("deadline"))
        hand_over()
        with pytest.raises(TimeoutError, match="deadline"):
            await call.future

    asyncio.run(scenario())


def test_what_comes_next_is_quick_or_not() -> None:
    schedule = Schedule()
    assert not schedule.is_quick(0.002, LOOP)
    schedule.add(batcher(4, seconds=0.001))
    assert schedule.is_quick(0.002, LOOP)
    assert not schedule.is_quick(0.0005, LOOP)
    assert not schedule.is_quick(0.002, OTHER), "it is for the event loop of its request"
    schedule.add(batcher(5, seconds=0.1))
    assert schedule.is_quick(0.002, LOOP)
    schedule.add(batcher(3, seconds=0.1))
    assert not schedule.is_quick(0.002, LOOP)
    assert deadlines(schedule) == [3, 4, 5]
    schedule.add(batcher(4, seconds=0.001))
    schedule.add(call(9))
    assert not schedule.is_quick(0.002, LOOP), "a call is for a thread"
