"""Earliest deadline first, over all queues and device tasks, with the quanta of decode loops between them.

Other work passes between the quanta of a loop: a quantum goes last until it is due, then first. Not thread-safe: the
executor calls it under its lock.
"""

import heapq
from collections import deque
from itertools import count
from typing import Protocol

from service.engine.batching.queue import Batch, BatchQueue
from service.engine.batching.request import Request
from service.engine.scheduling.device_task import DeviceTask
from service.errors import EkibenError


class QuantumLoop(Protocol):
    """Work that goes on in quanta, such as a decode loop. Never run on two threads at the same time."""

    due: float  # on the clock of `time.monotonic`: until then, all other work goes first

    def run(self) -> bool:
        """Do one quantum; returns whether more work is left. Never raises."""

    def fail(self, error: EkibenError) -> None:
        """Give up all work with this error."""


Job = Batch | DeviceTask | QuantumLoop


class EdfScheduler:
    def __init__(self) -> None:
        self._queues: dict[BatchQueue, None] = {}  # those with queued rows
        self._tasks: list[tuple[float, int, DeviceTask]] = []
        self._loops: deque[QuantumLoop] = deque()  # each is next due before those behind it
        self._numbers = count()

    def __bool__(self) -> bool:
        return bool(self._queues or self._tasks or self._loops)

    def add_queue(self, queue: BatchQueue) -> None:
        """Rows were pushed to this queue."""
        self._queues[queue] = None

    def add_task(self, task: DeviceTask) -> None:
        heapq.heappush(self._tasks, (task.deadline, next(self._numbers), task))

    def add_loop(self, loop: QuantumLoop) -> None:
        self._loops.append(loop)

    def next_job(self, now: float) -> Job | None:
        if self._loops and self._loops[0].due <= now:
            return self._loops.popleft()
        while self._tasks and self._tasks[0][2].is_cancelled:
            heapq.heappop(self._tasks)
        queue, deadline = self._most_urgent(None)
        if self._tasks and (queue is None or self._tasks[0][0] < deadline):
            return heapq.heappop(self._tasks)[2]
        if queue is not None:
            return queue.next_batch(now)
        return self._loops.popleft() if self._loops else None

    def next_batch(self, now: float, budget_s: float) -> Batch | None:
        """The most urgent of the batches that usually fit the budget."""
        queue, _ = self._most_urgent(budget_s)
        return None if queue is None else queue.next_batch(now)

    def clear(self) -> tuple[list[Request | DeviceTask], list[QuantumLoop]]:
        """Drop everything and return what was dropped."""
        loops = list(self._loops)
        self._loops.clear()
        dropped: list[Request | DeviceTask] = [task for *_, task in self._tasks]
        for queue in self._queues:
            dropped += queue.clear()
        self._tasks, self._queues = [], {}
        return dropped, loops

    def _most_urgent(self, budget_s: float | None) -> tuple[BatchQueue | None, float]:
        """The queue with the earliest deadline, and that deadline, among those whose next batch fits the budget."""
        best: BatchQueue | None = None
        deadline = 0.0
        for queue in list(self._queues):
            first = queue.most_urgent()
            if first is None:
                del self._queues[queue]
            elif (best is None or first.deadline < deadline) and (
                budget_s is None or queue.fits_budget(first, budget_s)
            ):
                best, deadline = queue, first.deadline
        return best, deadline
