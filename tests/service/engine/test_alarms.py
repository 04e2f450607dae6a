"""Given up at the deadline, never before, and let go when settled."""

import asyncio
import gc
import time
import weakref
from collections.abc import Sequence
from contextvars import ContextVar

import pytest

from service.engine.admission import Admission
from service.engine.alarms import TICKS_PER_S, Alarms
from service.engine.batcher import Batcher
from service.engine.counters import Counters
from service.engine.layout import Layout
from service.engine.limits import Limits
from service.engine.request import Request
from tests.service.engine.fakes import FakeSession, rows


def ask(deadline: float) -> Request:
    session = FakeSession()
    queue = Batcher(Layout(session.manifest), Limits(), Counters(model="m", version="1"), Admission(1))
    return Request(
        session,  # type: ignore[arg-type]
        queue,
        rows(5),
        None,
        num_rows=1,
        items="",
        arrived=0.0,
        deadline=deadline,
        loop=asyncio.get_running_loop(),
    )


def test_each_rings_at_its_deadline_and_the_settled_not_at_all() -> None:
    rung: dict[Request, float] = {}

    def ring(requests: Sequence[Request]) -> None:
        rung.update(dict.fromkeys(requests, time.monotonic()))

    async def scenario() -> tuple[list[Request], Request]:
        alarms, now = Alarms(ring), time.monotonic()
        waiting = [ask(now + delay) for delay in (0.05, 0.02, 0.05, -1.0)]
        settled = ask(now + 0.02)
        for request in (*waiting, settled):
            alarms.set(request)
        settled.fail(TimeoutError())
        assert isinstance(settled.future.exception(), TimeoutError)
        while len(rung) < len(waiting):
            await asyncio.sleep(0.001)
        await asyncio.sleep(2 / TICKS_PER_S)
        return waiting, settled

    waiting, settled = asyncio.run(scenario())
    assert set(rung) == set(waiting)
    assert all(at >= request.deadline for request, at in rung.items())
    assert settled not in rung


def test_the_settled_are_not_kept_until_their_deadline() -> None:
    async def scenario() -> None:
        alarms = Alarms(lambda _: None)
        request = ask(time.monotonic() + 1000)
        alarms.set(request)
        session = weakref.ref(request.session)
        request.fail(TimeoutError())
        assert request.future.exception()
        del request
        gc.collect()
        assert session() is None

    asyncio.run(scenario())


def test_the_settled_leave_nothing_that_lasts_however_far_their_deadlines_are() -> None:
    async def scenario() -> int:
        alarms, loop = Alarms(lambda _: None), asyncio.get_running_loop()
        for number in range(1000):
            request = ask(time.monotonic() + 1000 + number)
            alarms.set(request)
            request.fail(TimeoutError())
            assert request.future.exception()
        return len(alarms._ticks[loop])

    assert asyncio.run(scenario()) < 500


def test_a_moment_keeps_nothing_of_who_asked_for_it_first() -> None:
    """Such as the body of its request, which is in the context of the task that queues it."""

    class Body:
        pass

    holder: ContextVar[Body] = ContextVar("holder")

    async def request() -> "weakref.ref[Body]":
        body = Body()
        holder.set(body)
        asked = ask(time.monotonic() + 30)
        alarms.set(asked)
        asked.fail(TimeoutError())
        assert asked.future.exception()
        return weakref.ref(body)

    async def scenario() -> None:
        body = await asyncio.create_task(request())
        await asyncio.sleep(0)  # the end of the task wakes this one, and is held as long as this turn lasts
        gc.collect()
        assert body() is None

    alarms = Alarms(lambda _: None)
    asyncio.run(scenario())


def test_a_deadline_that_is_far_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.engine.alarms.AHEAD_S", 0.02)
    rung: dict[Request, float] = {}

    async def scenario() -> list[Request]:
        alarms = Alarms(lambda requests: rung.update(dict.fromkeys(requests, time.monotonic())))
        waiting = [ask(time.monotonic() + delay) for delay in (0.01, 0.1, 0.2)]
        for request in waiting:
            alarms.set(request)
        while len(rung) < len(waiting):
            await asyncio.sleep(0.001)
        return waiting

    waiting = asyncio.run(scenario())
    assert list(rung) == waiting
    assert all(at >= request.deadline for request, at in rung.items())


def test_an_event_loop_that_has_ended_is_not_kept() -> None:
    alarms = Alarms(lambda _: None)

    async def ask_for_later() -> "weakref.ref[asyncio.AbstractEventLoop]":
        alarms.set(ask(time.monotonic() + 1000))
        return weakref.ref(asyncio.get_running_loop())

    loops = [asyncio.run(ask_for_later()) for _ in range(5)]
    gc.collect()
    assert sum(loop() is not None for loop in loops) <= 1
