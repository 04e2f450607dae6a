"""Requests expire at their deadline, never before, and leave nothing behind when they are done."""

import asyncio
import gc
import time
import weakref
from collections.abc import Sequence
from contextvars import ContextVar

import pytest

from service.engine.batching.request import Request
from service.engine.scheduling.deadline_timer import TICKS_PER_S, DeadlineTimers
from tests.service.engine.fakes import FakeSession, rows
from tests.service.engine.requests import make_queue, make_request


def request_until(deadline: float) -> Request:
    session = FakeSession()
    return make_request(
        make_queue(session), rows(5), session=session, deadline=deadline, loop=asyncio.get_running_loop()
    )


def fail(request: Request) -> None:
    request.fail(TimeoutError())
    assert isinstance(request.future.exception(), TimeoutError)


def test_pending_requests_expire_at_their_deadline_and_done_ones_do_not() -> None:
    expired: dict[Request, float] = {}

    def expire(requests: Sequence[Request]) -> None:
        expired.update(dict.fromkeys(requests, time.monotonic()))

    async def scenario() -> tuple[list[Request], Request]:
        timers, now = DeadlineTimers(expire), time.monotonic()
        waiting = [request_until(now + delay) for delay in (0.05, 0.02, 0.05, -1.0)]
        done = request_until(now + 0.02)
        for request in (*waiting, done):
            timers.add(request)
        fail(done)
        while len(expired) < len(waiting):
            await asyncio.sleep(0.001)
        await asyncio.sleep(2 / TICKS_PER_S)
        return waiting, done

    waiting, done = asyncio.run(scenario())
    assert set(expired) == set(waiting)
    assert all(at >= request.deadline for request, at in expired.items())
    assert done not in expired


def test_requests_of_one_deadline_share_a_timer() -> None:
    async def scenario() -> None:
        timers, deadline = DeadlineTimers(lambda _: None), time.monotonic() + 30
        first, second, after = (request_until(deadline + delay) for delay in (0.0, 0.0, 1.0))
        for request in (first, second, after):
            timers.add(request)
        assert first.timer is second.timer is not after.timer
        assert list(first.timer or ()) == [first, second]

    asyncio.run(scenario())


def test_done_requests_are_not_kept_until_their_deadline() -> None:
    async def scenario() -> None:
        timers = DeadlineTimers(lambda _: None)
        request = request_until(time.monotonic() + 1000)
        timers.add(request)
        session = weakref.ref(request.session)
        fail(request)
        del request
        gc.collect()
        assert session() is None

    asyncio.run(scenario())


def test_far_deadlines_of_done_requests_keep_no_memory() -> None:
    async def scenario() -> int:
        timers, loop = DeadlineTimers(lambda _: None), asyncio.get_running_loop()
        for number in range(1000):
            request = request_until(time.monotonic() + 1000 + number)
            timers.add(request)
            fail(request)
        return len(timers._ticks[loop])

    assert asyncio.run(scenario()) < 500


def test_a_timer_keeps_nothing_of_the_request_that_started_it() -> None:
    """Such as the request's body, which is in the context of the task that queues it."""

    class Body:
        pass

    holder: ContextVar[Body] = ContextVar("holder")

    async def queue_one() -> "weakref.ref[Body]":
        body = Body()
        holder.set(body)
        request = request_until(time.monotonic() + 30)
        timers.add(request)
        fail(request)
        return weakref.ref(body)

    async def scenario() -> None:
        body = await asyncio.create_task(queue_one())
        await asyncio.sleep(0)  # the event loop holds the finished task for the rest of its turn
        gc.collect()
        assert body() is None

    timers = DeadlineTimers(lambda _: None)
    asyncio.run(scenario())


def test_a_deadline_beyond_the_longest_timer_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.engine.scheduling.deadline_timer.MAX_WAIT_S", 0.02)
    expired: dict[Request, float] = {}

    async def scenario() -> list[Request]:
        timers = DeadlineTimers(lambda requests: expired.update(dict.fromkeys(requests, time.monotonic())))
        waiting = [request_until(time.monotonic() + delay) for delay in (0.01, 0.1, 0.2)]
        for request in waiting:
            timers.add(request)
        while len(expired) < len(waiting):
            await asyncio.sleep(0.001)
        return waiting

    waiting = asyncio.run(scenario())
    assert list(expired) == waiting
    assert all(at >= request.deadline for request, at in expired.items())


def test_an_event_loop_that_has_ended_is_not_kept() -> None:
    timers = DeadlineTimers(lambda _: None)

    async def add_one() -> "weakref.ref[asyncio.AbstractEventLoop]":
        timers.add(request_until(time.monotonic() + 1000))
        return weakref.ref(asyncio.get_running_loop())

    loops = [asyncio.run(add_one()) for _ in range(5)]
    gc.collect()
    assert sum(loop() is not None for loop in loops) <= 1
