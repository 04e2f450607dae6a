"""Requests that arrive in one turn of an event loop are taken together, so that they can share a batch."""

import asyncio

from service.engine.batching.queue import BatchQueue
from service.engine.batching.request import Request
from service.engine.scheduling.executor import Executor
from service.engine.scheduling.inline import Arrivals, InlineRunner

IDLE_STREAK = 4  # turns with a single request: after that many a request runs without waiting for others
COALESCE_EVERY = 16  # one request in this many waits all the same, to notice that others arrive again


class Coalescer:
    def __init__(self, executor: Executor, inline: InlineRunner) -> None:
        self._executor = executor
        self._inline = inline
        self._arrivals: dict[asyncio.AbstractEventLoop, Arrivals] = {}  # since the last drain
        self._single_turns = 0  # in a row

    def is_idle(self) -> bool:
        """True if a request should run alone now; false once in COALESCE_EVERY calls, to notice other arrivals."""
        executor = self._executor
        if self._single_turns < IDLE_STREAK or executor.pending or executor.running or executor.closed:
            return False
        self._single_turns += 1
        return self._single_turns % COALESCE_EVERY != 0

    def add(self, queue: BatchQueue, request: Request) -> None:
        """Collect a request until the next drain, or until the collected requests fill a batch that is not quick."""
        loop = request.loop
        with self._executor.lock:
            self._executor.pending += 1
        arrivals = self._arrivals.get(loop)
        if arrivals is None:
            self._arrivals[loop] = [(queue, request)]
            # In two turns: a request whose body is read in this turn arrives in the next.
            loop.call_soon(loop.call_soon, self._drain, loop)
            return
        arrivals.append((queue, request))
        num_steps = request.num_steps
        if len(arrivals) % queue.limits.max_batch_items == 0 and not queue.is_quick(
            queue.capacity(num_steps), num_steps
        ):
            # A thread can start on these while more requests arrive.
            self._arrivals[loop] = []
            self._executor.enqueue(arrivals)
            self._executor.wake()

    def _drain(self, loop: asyncio.AbstractEventLoop) -> None:
        arrivals = self._arrivals.pop(loop)
        self._single_turns = self._single_turns + 1 if len(arrivals) == 1 else 0
        num_run, budget_s = self._inline.run_arrivals(arrivals, loop)
        if num_run < len(arrivals):
            self._executor.enqueue(arrivals[num_run:])
        self._inline.drain_queues(loop, budget_s)
