"""The device threads: each takes the most urgent job, computes it and hands the results to the callers' event loops.

Work-conserving: a free thread starts queued work at once and never waits for a batch to fill. One lock guards the state
of the executor, admission, the scheduler and the queues; it is never held while a model computes.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from service.engine.admission.controller import AdmissionController
from service.engine.batching.backlog import Backlog
from service.engine.batching.batch import SliceResult, compute
from service.engine.batching.queue import Batch, BatchQueue
from service.engine.batching.request import EMPTY, Request, RequestStatus
from service.engine.context import UNRESERVED
from service.engine.limits import Limits
from service.engine.scheduling.deadline_timer import DeadlineTimers
from service.engine.scheduling.device_task import DeviceTask
from service.engine.scheduling.scheduler import EdfScheduler, Job, QuantumLoop
from service.errors import EkibenError, deadline_passed, shutting_down

log = logging.getLogger(__name__)


class Executor:
    def __init__(
        self, slots: int, limits: Limits, *, name: str = "runner", prepare_thread: Callable[[], None] | None = None
    ) -> None:
        """`slots` is the number of jobs that compute at the same time, on threads and event loops together.

        Each thread begins with `prepare_thread`, if any.
        """
        self._name = name
        self._prepare_thread = prepare_thread
        self.slots = slots
        self.lock = threading.RLock()
        self.backlog = Backlog(slots)
        self.admission = AdmissionController(slots, limits, self.backlog, self.lock)
        self.pending = 0  # requests and tasks that have arrived and are not answered
        self.closed = False
        self._has_work = threading.Condition(self.lock)
        self._threads: list[threading.Thread] = []
        self._idle_threads = 0
        self.running = 0  # slots in use
        self._num_finished = 0
        self._scheduler = EdfScheduler()
        self._timers = DeadlineTimers(self._expire)

    def progress_token(self) -> int | None:
        """A number that changes whenever a job ends; None while a slot is free."""
        with self.lock:
            return self._num_finished if self.running >= self.slots else None

    def enqueue(self, requests: Sequence[tuple[BatchQueue, Request]]) -> None:
        """Admit these requests to their queues, or fail them. To be called on their event loop."""
        with self.lock:
            for queue, request in requests:
                self._admit(queue, request)
        for _, request in requests:
            if not request.future.done():
                self._timers.add(request)

    def finish(self, queue: BatchQueue, request: Request) -> None:
        """Count a request as answered, and discard its queued rows if its caller cancelled it."""
        with self.lock:
            self.pending -= 1
            if request.future.cancelled():
                queue.counters.cancelled_items += queue.discard(request, RequestStatus.CANCELLED)
                request.on_done()
        request.slices, request.failures = (), EMPTY  # they refer to the request: only the collector would free them

    def submit(self, task: DeviceTask) -> None:
        with self.lock:
            if self.closed:
                raise shutting_down()
            self.pending += 1
            self._scheduler.add_task(task)
            self.wake()
        task.timer = task.loop.call_later(max(task.deadline - time.monotonic(), 0.0), task.fail, deadline_passed())

    def add_loop(self, loop: QuantumLoop) -> None:
        """Have the loop run in quanta until it has no more work."""
        with self.lock:
            if self.closed:
                raise shutting_down()
            self._scheduler.add_loop(loop)
            self.wake()

    def withdraw(self, task: DeviceTask) -> None:
        """Count a task as answered, and skip its work if that has not started."""
        task.cancel()
        with self.lock:
            self.pending -= 1

    def claim(self, batch: Batch) -> bool:
        """Take a slot for a batch that was never queued, if no queued work waits for one."""
        with self.lock:
            if self._scheduler or self.running >= self.slots or self.closed:
                return False
            self.running += 1
            for part in batch.slices:
                batch.queue.count_admitted(part.request)
                if part.request.context.permit is not UNRESERVED:
                    part.request.context.permit.release()
            return True

    def claim_queued(self, now: float, budget_s: float) -> Batch | None:
        """Take a slot and the most urgent batch that usually fits the budget; a thread takes what does not fit."""
        with self.lock:
            if self.running >= self.slots:
                return None
            batch = self._scheduler.next_batch(now, budget_s)
            if batch is not None:
                self.running += 1
                if self.backlog.total_s > budget_s:
                    self.wake()
            return batch

    def compute(self, batch: Batch, started_at: float, *, loop: asyncio.AbstractEventLoop | None) -> float:
        """Compute a claimed batch on `loop` (None: a thread), deliver its results, and return the seconds it took."""
        results = compute(batch.slices) if batch.slices else []
        ended_at = time.monotonic()
        with self.lock:
            self._release_slot()
            self.backlog.finished(batch)
            batch.queue.record_batch(batch, results, started_at, ended_at, inline=loop is not None)
        for target in {part.request.loop for part, _ in results} | {request.loop for request in batch.expired}:
            if target is loop:
                self._deliver(target, results, batch.expired)
            else:
                _post(target, self._deliver, target, results, batch.expired)
        return ended_at - started_at

    def wake(self) -> None:
        """Have one more thread look for work, if there is queued work and a free slot."""
        with self.lock:
            if self._scheduler and self.running < self.slots:
                if self._idle_threads:
                    self._has_work.notify()
                elif len(self._threads) < self.slots:
                    name = f"{self._name}-{len(self._threads)}"
                    thread = threading.Thread(target=self._run_thread, name=name, daemon=True)
                    self._threads.append(thread)
                    thread.start()

    def close(self, timeout_s: float) -> None:
        with self.lock:
            self.closed = True
            dropped, loops = self._scheduler.clear()
            self._has_work.notify_all()
        for loop in loops:
            loop.fail(shutting_down())
        for waiting in dropped:
            _post(waiting.loop, waiting.fail, shutting_down())
        end = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(end - time.monotonic(), 0.0))

    def _admit(self, queue: BatchQueue, request: Request) -> None:
        if request.future.done():
            return
        slices = queue.slices(request)
        if self.closed:
            queue.counters.refused["stopping"] += 1
            request.fail(shutting_down())
            return
        request.context.permit.release()
        if self.running or self._scheduler:
            try:
                permit = self.admission.try_admit(request.context, queue.estimate(request))
            except EkibenError as refusal:
                request.fail(refusal.with_traceback(None))
                return
            request.predicted_s = permit.predicted_s
        for part in slices:
            queue.push(part)
        self._scheduler.add_queue(queue)
        queue.count_admitted(request)

    def _expire(self, requests: Sequence[Request]) -> None:
        for request in requests:
            with self.lock:
                counters = request.queue.counters
                expired = request.queue.discard(request, RequestStatus.EXPIRED)
                counters.expired_items += expired
                counters.late_items += request.pending_rows - expired
            request.fail(deadline_passed())

    def _run_thread(self) -> None:
        if self._prepare_thread is not None:
            self._prepare_thread()
        while True:
            with self.lock:
                while (job := self._next_job()) is None:
                    if self.closed:
                        return
                    self._idle_threads += 1
                    self._has_work.wait()
                    self._idle_threads -= 1
                self.running += 1
                self.wake()
            if isinstance(job, DeviceTask):
                _post(job.loop, job.run())
                with self.lock:
                    self._release_slot()
            elif not isinstance(job, Batch):
                self._run_quantum(job)
            else:
                self.compute(job, time.monotonic(), loop=None)
            del job  # an idle thread keeps no model alive

    def _run_quantum(self, loop: QuantumLoop) -> None:
        has_more = loop.run()
        with self.lock:
            self._release_slot()
            has_ended = has_more and self.closed
            if has_more and not has_ended:
                self._scheduler.add_loop(loop)
        if has_ended:
            loop.fail(shutting_down())

    def _release_slot(self) -> None:
        self.running -= 1
        self._num_finished += 1

    def _next_job(self) -> Job | None:
        now = time.monotonic()
        job = self._scheduler.next_job(now) if self.running < self.slots else None
        if isinstance(job, Batch):
            self.backlog.started(job, now + job.queue.predict_batch_s(job))
        return job

    def _deliver(
        self, loop: asyncio.AbstractEventLoop, results: Sequence[SliceResult], expired: Sequence[Request]
    ) -> None:
        """Give the requests of this event loop, on which this runs, their results."""
        for part, result in results:
            request = part.request
            if request.loop is loop:
                try:
                    request.deliver(part, result)
                except Exception as error:  # an output of an undeclared shape fails its own request only
                    log.exception("%s: an output does not have its declared shape", request.collator.model)
                    with self.lock:
                        request.queue.discard(request, RequestStatus.DONE)
                    request.fail(error)
        if results:
            last = results[-1][0].request  # one request of a batch is enough to calibrate
            if last.predicted_s and not last.pending_rows:
                with self.lock:
                    self.backlog.calibrate(last.predicted_s, time.monotonic() - last.arrived_at)
        for request in expired:
            if request.loop is loop:
                request.fail(deadline_passed())


def _post(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *args: Any) -> None:
    """Call the function on the loop, unless the loop has ended with all its callers."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(function, *args)
