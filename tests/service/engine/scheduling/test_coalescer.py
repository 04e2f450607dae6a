"""Requests that arrive in one turn of the event loop are taken together."""

import asyncio
from typing import Any

from service.engine.limits import Limits
from service.engine.scheduling.coalescer import COALESCE_EVERY, IDLE_STREAK, Coalescer
from service.engine.scheduling.executor import Executor
from service.engine.scheduling.inline import Arrivals, InlineRunner
from tests.service.engine.fakes import FakeSession, rows
from tests.service.engine.requests import make_queue, make_request

SESSION = FakeSession()


class NotingInline(InlineRunner):
    """Notes what arrived together, and answers it."""

    def __init__(self, executor: Executor) -> None:
        super().__init__(executor)
        self.groups: list[int] = []

    def run_arrivals(self, arrivals: Arrivals, loop: asyncio.AbstractEventLoop) -> tuple[int, float]:
        self.groups.append(len(arrivals))
        for queue, request in arrivals:
            request.fail(TimeoutError())
            request.future.exception()
            self._executor.finish(queue, request)
        return len(arrivals), 0.0


class Case:
    def __init__(self, **limits: Any) -> None:
        self.executor = Executor(1, Limits())
        self.inline = NotingInline(self.executor)
        self.coalescer = Coalescer(self.executor, self.inline)
        self.queue = make_queue(SESSION, backlog=self.executor.backlog, **limits)

    def send(self, num: int) -> None:
        for _ in range(num):
            loop = asyncio.get_running_loop()
            request = make_request(self.queue, rows(5), session=SESSION, deadline=1e9, loop=loop)
            self.coalescer.add(self.queue, request)

    async def drain(self) -> None:
        for _ in range(3):
            await asyncio.sleep(0)


def test_requests_of_one_turn_and_of_the_next_are_drained_together() -> None:
    async def scenario() -> list[int]:
        case = Case()
        case.send(3)
        asyncio.get_running_loop().call_soon(case.send, 2)
        await case.drain()
        case.send(1)
        await case.drain()
        return case.inline.groups

    assert asyncio.run(scenario()) == [5, 1]


def test_full_batches_that_are_not_quick_are_queued_while_more_arrive() -> None:
    async def scenario() -> tuple[list[int], int]:
        case = Case(max_batch_items=4)
        case.executor.closed = True  # so that what is queued is refused at once, and no thread starts
        case.queue.observe(4, 5, 1.0)
        case.send(10)
        refused = case.queue.counters.refused["stopping"]
        await case.drain()
        return case.inline.groups, refused

    assert asyncio.run(scenario()) == ([2], 8)


def test_an_idle_service_answers_single_requests_at_once_but_looks_for_company() -> None:
    async def scenario() -> list[bool]:
        case = Case()
        for _ in range(4):
            assert not case.coalescer.is_idle(), "fewer than four turns had a single request"
            case.send(1)
            await case.drain()
        idle = [case.coalescer.is_idle() for _ in range(2 * COALESCE_EVERY)]
        case.send(1)
        assert not case.coalescer.is_idle(), "another request has arrived"
        case.send(1)
        await case.drain()
        assert not case.coalescer.is_idle(), "the last requests met others"
        return idle

    idle = asyncio.run(scenario())
    calls = [i for i, is_idle in enumerate(idle, start=IDLE_STREAK + 1) if not is_idle]
    assert calls == [COALESCE_EVERY, 2 * COALESCE_EVERY]


def test_a_busy_or_closed_executor_is_not_idle() -> None:
    async def scenario() -> list[bool]:
        case = Case()
        for _ in range(IDLE_STREAK):
            case.send(1)
            await case.drain()
        idle = [case.coalescer.is_idle()]
        case.executor.pending = 1
        idle.append(case.coalescer.is_idle())
        case.executor.pending, case.executor.closed = 0, True
        idle.append(case.coalescer.is_idle())
        return idle

    assert asyncio.run(scenario()) == [True, False, False]
