"""The earliest deadline of all queues and tasks comes next."""

from typing import Any

from service.engine.batching.queue import Batch, BatchQueue
from service.engine.scheduling.device_task import DeviceTask
from service.engine.scheduling.scheduler import EdfScheduler
from service.errors import EkibenError
from tests.service.engine.fakes import LOOP, FakeSession, rows
from tests.service.engine.requests import make_queue, make_request

SESSION = FakeSession()


def task(deadline: float) -> DeviceTask:
    return DeviceTask(print, (), LOOP, deadline)


def queue_of(*deadlines: float, seconds: float | None = None) -> BatchQueue:
    queue = make_queue(SESSION, max_batch_items=1)
    if seconds is not None:
        queue.cost_model.observe(1, 5, seconds)
    for deadline in deadlines:
        for part in queue.slices(make_request(queue, rows(5), session=SESSION, deadline=deadline)):
            queue.push(part)
    return queue


def scheduler_of(*sources: Any) -> EdfScheduler:
    scheduler = EdfScheduler()
    for source in sources:
        (scheduler.add_queue if isinstance(source, BatchQueue) else scheduler.add_task)(source)
    return scheduler


def deadlines(scheduler: EdfScheduler) -> list[float]:
    found = []
    while (job := scheduler.next_job(0.0)) is not None:
        assert isinstance(job, Batch | DeviceTask)
        found.append(job.slices[0].deadline if isinstance(job, Batch) else job.deadline)
    return found


def test_the_earliest_deadline_of_all_sources_comes_next() -> None:
    assert not EdfScheduler()
    scheduler = scheduler_of(task(2.5), queue_of(4, 2), queue_of(1, 5, 3), task(0.5))
    assert scheduler
    assert deadlines(scheduler) == [0.5, 1, 2, 2.5, 3, 4, 5]
    assert not scheduler


def test_of_equal_deadlines_the_queue_that_waited_first_comes_next() -> None:
    first, second = queue_of(1), queue_of(1)
    scheduler = scheduler_of(first, second)
    assert isinstance(scheduler.next_job(0.0), Batch)
    assert (first.num_rows, second.num_rows) == (0, 1)


def test_cancelled_tasks_are_passed_over() -> None:
    cancelled = task(1)
    scheduler = scheduler_of(cancelled, task(2))
    cancelled.cancel()
    assert deadlines(scheduler) == [2]


def test_only_batches_within_the_budget_are_taken_for_the_event_loop() -> None:
    scheduler = scheduler_of(queue_of(1, seconds=0.5), queue_of(2, seconds=0.0001), queue_of(0.5), task(0.1))
    batch = scheduler.next_batch(0.0, 0.001)
    assert batch is not None
    assert batch.slices[0].deadline == 2
    assert scheduler.next_batch(0.0, 0.001) is None
    assert deadlines(scheduler) == [0.1, 0.5, 1]


class Loop:
    def __init__(self, due: float) -> None:
        self.due = due

    def run(self) -> bool:
        raise NotImplementedError

    def fail(self, error: EkibenError) -> None:
        raise NotImplementedError


def test_other_work_passes_between_the_quanta_of_a_loop_until_it_is_due() -> None:
    loop, scheduler = Loop(due=10), scheduler_of(queue_of(30), task(20))
    scheduler.add_loop(loop)
    assert isinstance(scheduler.next_job(9.9), DeviceTask)
    assert scheduler.next_job(10.0) is loop
    assert isinstance(scheduler.next_job(10.0), Batch)
    assert scheduler.next_job(10.0) is None
    scheduler.add_loop(loop)
    assert scheduler
    assert scheduler.next_job(0.0) is loop
    assert not scheduler


def test_loops_take_turns() -> None:
    first, second, scheduler = Loop(due=2), Loop(due=1), EdfScheduler()
    for loop in (first, second):
        scheduler.add_loop(loop)
    for _ in range(3):
        for loop in (first, second):
            assert scheduler.next_job(5.0) is loop
            scheduler.add_loop(loop)


def test_clear_returns_everything_that_waited() -> None:
    waiting, loop = task(1), Loop(due=1)
    scheduler = scheduler_of(waiting, queue_of(1, 2))
    scheduler.add_loop(loop)
    dropped, loops = scheduler.clear()
    assert waiting in dropped
    assert len(dropped) == 3
    assert loops == [loop]
    assert deadlines(scheduler) == []
