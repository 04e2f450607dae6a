"""Quick computations run on the event loop within its budget; threads or the batched path do everything else."""

import asyncio
from typing import Any

import pytest

from service.engine.batching.queue import BatchQueue
from service.engine.batching.request import Request
from service.engine.limits import INLINE_BUDGET_S, Limits
from service.engine.scheduling.executor import Executor
from service.engine.scheduling.inline import InlineRunner
from tests.service.engine.fakes import NOT_FINITE, POISON, FakeSession, rows
from tests.service.engine.requests import make_queue, make_request

QUICK_S = INLINE_BUDGET_S / 4


def quick_queue(executor: Executor, session: FakeSession, **limits: Any) -> BatchQueue:
    queue = make_queue(session, backlog=executor.backlog, **limits)
    for num_rows in (1, 2, 4):
        queue.observe(num_rows, 5, QUICK_S)
    return queue


def arrivals(queue: BatchQueue, session: FakeSession, num: int) -> list[tuple[BatchQueue, Request]]:
    loop = asyncio.get_running_loop()
    return [
        (queue, make_request(queue, rows(5, first=i), session=session, deadline=1e9, loop=loop)) for i in range(num)
    ]


def test_a_single_request_runs_without_a_batch_and_is_counted() -> None:
    executor, session = Executor(1, Limits()), FakeSession()
    queue = quick_queue(executor, session)
    answer = InlineRunner(executor).run_request(queue, session, rows(5), ["next_h"], num_rows=1, num_steps=5)  # type: ignore[arg-type]
    assert answer is not None
    assert list(answer) == ["next_h"]
    counters = queue.counters
    assert (counters.requests, counters.executed_items, counters.inline_batches, counters.steps) == (1, 1, 1, 5)


@pytest.mark.parametrize("first", [POISON, float("nan"), NOT_FINITE])
def test_a_single_request_that_fails_is_left_to_the_batched_path(first: float) -> None:
    executor, session = Executor(1, Limits()), FakeSession()
    queue = quick_queue(executor, session)
    inputs = rows(5, first=first)
    assert InlineRunner(executor).run_request(queue, session, inputs, None, num_rows=1, num_steps=5) is None  # type: ignore[arg-type]
    assert queue.counters.requests == 0


def test_arrivals_run_in_quick_batches_until_the_budget_is_used() -> None:
    async def scenario() -> tuple[int, float, list[bool]]:
        executor, session = Executor(1, Limits()), FakeSession(seconds=INLINE_BUDGET_S)
        queue = quick_queue(executor, session, max_batch_items=4)
        waiting = arrivals(queue, session, 10)
        num_run, budget_s = InlineRunner(executor).run_arrivals(waiting, asyncio.get_running_loop())
        return num_run, budget_s, [request.future.done() for _, request in waiting]

    num_run, budget_s, done = asyncio.run(scenario())
    assert num_run == 4, "the first batch took the whole budget"
    assert budget_s <= 0
    assert done == [True] * 4 + [False] * 6


def test_one_arrival_runs_too() -> None:
    async def scenario() -> tuple[int, bool]:
        executor, session = Executor(1, Limits()), FakeSession()
        waiting = arrivals(quick_queue(executor, session), session, 1)
        num_run, _ = InlineRunner(executor).run_arrivals(waiting, asyncio.get_running_loop())
        return num_run, waiting[0][1].future.done()

    assert asyncio.run(scenario()) == (1, True)


def test_arrivals_wait_while_other_work_is_queued() -> None:
    async def scenario() -> int:
        executor, session = Executor(1, Limits()), FakeSession()
        queue = quick_queue(executor, session)
        executor.enqueue(arrivals(queue, session, 1))
        return InlineRunner(executor).run_arrivals(arrivals(queue, session, 2), asyncio.get_running_loop())[0]

    assert asyncio.run(scenario()) == 0


def test_queued_batches_that_fit_the_budget_run_on_the_event_loop() -> None:
    async def scenario() -> tuple[FakeSession, FakeSession]:
        executor, quick, slow = Executor(1, Limits()), FakeSession(), FakeSession()
        slow_queue = make_queue(slow, backlog=executor.backlog)
        slow_queue.observe(1, 5, 1.0)
        [(_, waiting)] = slow_arrivals = arrivals(slow_queue, slow, 1)
        quick_arrivals = arrivals(quick_queue(executor, quick), quick, 3)
        executor.enqueue(slow_arrivals + quick_arrivals)
        InlineRunner(executor).drain_queues(asyncio.get_running_loop(), INLINE_BUDGET_S)
        assert all(request.future.done() for _, request in quick_arrivals)
        async with asyncio.timeout(30):
            await waiting.future
        executor.close(5.0)
        return quick, slow

    quick, slow = asyncio.run(scenario())
    assert (quick.rows, quick.threads) == ([0.0, 1.0, 2.0], {"MainThread"})
    assert "MainThread" not in slow.threads
