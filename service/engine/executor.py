"""The threads of a runner, and what they do next.

A free thread takes the most urgent work there is; nothing waits for a batch to fill. What is done within two
milliseconds runs on the event loop itself, without a change of threads, together with every request that has already
been read. Everything here is guarded by one lock, which is never held while a model computes.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from weakref import WeakSet

from service.engine.admission import Admission
from service.engine.alarms import Alarms
from service.engine.appointments import Visitor
from service.engine.batch import Batch, Outcome, compute
from service.engine.batcher import Batcher
from service.engine.counters import Counters
from service.engine.gate import Gate
from service.engine.layout import Array, Tensors
from service.engine.limits import INLINE_S, Limits
from service.engine.request import NOTHING, Request
from service.engine.schedule import Call, Schedule
from service.engine.sessions.session import Session
from service.errors import EkibenError

log = logging.getLogger(__name__)

LONELY = 4  # requests in a row that met no other: the next ones are run at once
LOOK_EVERY = 16  # but every so often one waits for those that have already been read


class Executor:
    def __init__(self, slots: int, limits: Limits) -> None:
        self.admission = Admission(slots)
        self.pending = 0
        self.stopped = False
        self._closed = False
        self._limits = limits
        self._slots = slots
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._threads: list[threading.Thread] = []
        self._waiting = 0  # threads that look for work when notified
        self._running = 0  # slots taken
        self._released = 0  # slots, since the start
        self._lonely = 0
        self._schedule = Schedule()
        self._gate = Gate(slots, limits, self.admission)
        self.judged: Mapping[str, object] = self._gate.judged
        self._alarms = Alarms(self._expire)
        self._arrivals: dict[asyncio.AbstractEventLoop, list[Request]] = {}  # since the last look
        self._resuming: WeakSet[asyncio.AbstractEventLoop] = WeakSet()  # go on with what is queued in their next turn

    def is_quiet(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Is a request likely to be the only one, now and among those that have been read already?"""
        if self._lonely < LONELY or self.pending or self._running or self.stopped or loop in self._arrivals:
            return False
        self._lonely += 1
        return self._lonely % LOOK_EVERY != 0

    @property
    def is_busy(self) -> bool:
        """May a request have to wait?"""
        return self._running > 0 or bool(self._schedule)

    def stuck_at(self) -> int | None:
        """While every slot is taken: a number that changes with every run that ends."""
        with self._lock:
            return self._released if self._running >= self._slots else None

    def stay_away_s(self, visitor: Visitor, now: float) -> float:
        return self._gate.stay_away_s(visitor, now)

    def knock(self, visitor: Visitor, now: float, lag_s: float = 0.0, line_s: float = 0.0) -> EkibenError | None:
        with self._lock:
            return self._gate.knock(visitor, now, lag_s, line_s)

    def judge(self, visitor: Visitor, batcher: Batcher, num_rows: int, num_steps: int, now: float) -> None:
        with self._lock:
            self._gate.judge(visitor, batcher, num_rows, num_steps, now)

    def forget(self, visitor: Visitor) -> None:
        if visitor.due_s:
            with self._lock:
                self._gate.forget(visitor)

    def refuse_if_stopped(self) -> None:
        if self.stopped:
            raise _shutting_down()

    def run_alone(
        self, batcher: Batcher, session: Session, inputs: Tensors, outputs: Sequence[str] | None, num_rows: int
    ) -> dict[str, Array] | None:
        """Run a request here and now; None if the model fails or a number is not finite."""
        began = time.monotonic()
        try:
            batcher.layout.check_numbers(inputs)
            answer = session.run(inputs, outputs)
        except Exception:  # noqa: BLE001 - whatever it is, the way for many will say which row is to blame
            return None
        ended = time.monotonic()
        with self._lock:
            batcher.note_alone(inputs, num_rows, ended - began)
        return answer

    def observe(self, batcher: Batcher, num_rows: int, num_steps: int, seconds: float) -> None:
        with self._lock:
            batcher.observe(num_rows, num_steps, seconds)

    def count_steps(self, counters: Counters, num_rows: int) -> None:
        with self._lock:
            counters.decoder_steps += num_rows

    def arrive(self, request: Request) -> None:
        """Take in a request, with all those that arrive before the event loop gets to it."""
        with self._lock:
            self.pending += 1
        arrived = self._arrivals.get(request.loop)
        if arrived is None:
            self._arrivals[request.loop] = [request]
            request.loop.call_soon(request.loop.call_soon, self._drain, request.loop)  # those half read come along
            return
        arrived.append(request)
        batcher, num_steps = request.batcher, request.num_steps
        if len(arrived) % self._limits.max_batch_items == 0 and not batcher.is_quick(
            batcher.room(num_steps), num_steps
        ):
            self._arrivals[request.loop] = []  # enough for a thread to begin with
            self._queue(arrived)
            with self._lock:
                self._wake()

    def leave(self, request: Request) -> None:
        """Its caller waits no longer."""
        with self._lock:
            self.pending -= 1
            if request.future.cancelled():
                request.settled()
                request.batcher.counters.cancelled_items += request.batcher.discard(request)
        request.pieces, request.failures = (), NOTHING  # which lead back to it: only the collector would free them

    def submit(self, call: Call) -> None:
        with self._lock:
            if self._closed:
                raise _shutting_down()
            self.pending += 1
            self._schedule.add(call)
            self._wake()
        call.timer = call.loop.call_later(max(call.deadline - time.monotonic(), 0.0), call.fail, too_late())

    def withdraw(self, call: Call) -> None:
        call.settled()
        with self._lock:
            self.pending -= 1

    def close(self, timeout_s: float) -> None:
        with self._lock:
            self.stopped = self._closed = True
            dropped = self._schedule.clear()
            self._work.notify_all()
        for waiting in dropped:
            _tell(waiting.loop, waiting.fail, _shutting_down())
        end = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(end - time.monotonic(), 0.0))

    def _admit(self, request: Request, now: float) -> None:
        """Queue the request, or refuse it."""
        if request.future.done():
            return
        batcher = request.batcher
        pieces = batcher.pieces(request)
        if self.stopped:
            batcher.counters.refused["stopping"] += 1
            request.fail(_shutting_down())
            return
        if request.visitor is not None:
            self._gate.forget(request.visitor)
        if self.is_busy:
            refusal = self._gate.refusal(request, pieces, now)
            if refusal is not None:
                request.fail(refusal)
                return
        for piece in pieces:
            batcher.push(piece)
        self._schedule.add(batcher)
        batcher.count(request)

    def _begin(self, batch: Batch) -> bool:
        """Take a slot for a batch that was never queued, if nothing else waits for one."""
        with self._lock:
            if self._schedule or self._running >= self._slots or self.stopped:
                return False
            self._running += 1
            for piece in batch.pieces:
                batch.batcher.count(piece.request)
                if piece.request.visitor is not None:
                    self._gate.forget(piece.request.visitor)
            return True

    def _drain(self, loop: asyncio.AbstractEventLoop) -> None:
        """On the event loop, after everything that was ready to arrive: begin what has arrived."""
        arrived = self._arrivals.pop(loop)
        self._lonely = self._lonely + 1 if len(arrived) == 1 else 0
        left_s = INLINE_S
        begun = 0
        for batch in arrived[0].batcher.quick(arrived, beside=self._slots > 1) if arrived else ():
            if left_s <= 0 or not self._begin(batch):
                break
            begun += len(batch.pieces)
            left_s -= self._compute(batch, time.monotonic(), here=loop)
        if begun < len(arrived):
            self._queue(arrived[begun:])
        self._go_on(loop, left_s)

    def _resume(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            self._resuming.discard(loop)
        self._go_on(loop, INLINE_S)

    def _go_on(self, loop: asyncio.AbstractEventLoop, left_s: float) -> None:
        """Compute here what is queued and done before `left_s` is over; have others do the rest.

        Those are threads, or the event loop in its next turn, for a request of its own, where the one thread there is
        would only take turns with it.
        """
        while left_s > 0:
            now = time.monotonic()
            with self._lock:
                queued = self._schedule.next_batch(now, left_s) if self._running < self._slots else None
                if queued is None:
                    break
                self._running += 1
                if self.admission.total_s > left_s:
                    self._wake()
            left_s -= self._compute(queued, now, here=loop)
        with self._lock:
            if self._slots > 1 or self._running or not self._schedule.is_quick(INLINE_S, loop):
                self._wake()
            elif loop not in self._resuming:
                self._resuming.add(loop)
                loop.call_soon(self._resume, loop)

    def _queue(self, requests: Sequence[Request]) -> None:
        now = time.monotonic()
        with self._lock:
            for request in requests:
                self._admit(request, now)
        for request in requests:
            if not request.future.done():
                self._alarms.set(request)

    def _expire(self, requests: Sequence[Request]) -> None:
        for request in requests:
            with self._lock:
                batcher = request.batcher
                expired = batcher.discard(request)
                batcher.counters.expired_items += expired
                batcher.counters.late_items += request.missing - expired
            request.fail(too_late())

    def _wake(self) -> None:
        """Have one more thread look for work, if there is work and room for it."""
        if self._schedule and self._running < self._slots:
            if self._waiting:
                self._work.notify()
            elif len(self._threads) < self._slots:
                thread = threading.Thread(target=self._serve, name=f"runner-{len(self._threads)}", daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self) -> None:
        """What a thread of this runner does all its life."""
        while True:
            with self._lock:
                while (job := self._next_job()) is None:
                    if self._closed:
                        return
                    self._waiting += 1
                    self._work.wait()
                    self._waiting -= 1
                self._running += 1
                self._wake()
            if isinstance(job, Call):
                _tell(job.loop, job.run())
                with self._lock:
                    self._release()
            else:
                self._compute(job, time.monotonic(), here=None)
            del job  # an idle thread keeps no model alive

    def _release(self) -> None:
        self._running -= 1
        self._released += 1

    def _next_job(self) -> Batch | Call | None:
        now = time.monotonic()
        job = self._schedule.next_job(now) if self._running < self._slots else None
        if isinstance(job, Batch):
            self.admission.begins(job, now + job.batcher.foretell(job))
        return job

    def _compute(self, batch: Batch, began: float, *, here: asyncio.AbstractEventLoop | None) -> float:
        """Run a batch and hand out its results; returns the seconds that the model took."""
        outcomes = compute(batch.pieces) if batch.pieces else []
        ended = time.monotonic()
        with self._lock:
            self._release()
            self.admission.ends(batch)
            batch.batcher.note(batch, outcomes, began, ended, inline=here is not None)
        for loop in {piece.request.loop for piece, _ in outcomes} | {request.loop for request in batch.expired}:
            if loop is here:
                self._settle(loop, outcomes, batch.expired)
            else:
                _tell(loop, self._settle, loop, outcomes, batch.expired)
        return ended - began

    def _settle(self, loop: asyncio.AbstractEventLoop, outcomes: Sequence[Outcome], expired: Sequence[Request]) -> None:
        """Give the requests of this event loop, which runs this, their results."""
        for piece, result in outcomes:
            request = piece.request
            if request.loop is loop:
                try:
                    request.take(piece, result)
                except Exception as error:  # an answer of another shape than declared is this request's trouble alone
                    log.exception("%s: its answer does not fit", request.layout.where)
                    with self._lock:
                        request.batcher.discard(request)
                    request.fail(error)
        if outcomes:
            last = outcomes[-1][0].request  # one of each batch teaches enough
            if last.foretold_s and not last.missing:
                with self._lock:
                    self.admission.learn(last.foretold_s, time.monotonic() - last.arrived)
        for request in expired:
            if request.loop is loop:
                request.fail(too_late())


def _tell(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *args: Any) -> None:
    """Call it on the loop, unless the loop has ended with everyone who waited there."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(function, *args)


def _shutting_down() -> EkibenError:
    return EkibenError("not-ready", "the service is shutting down", retry_after_s=1.0)


def too_late() -> EkibenError:
    return EkibenError("timeout", "no answer before the deadline")
