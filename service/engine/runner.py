"""The owner of one device: whatever computes there goes through it.

Work-conserving: whatever waits when a thread is free begins at once, the earliest deadline first; batches form only
while all are busy. A caller that goes away, or whose deadline passes, takes with it what has not begun; what has begun
runs to its end (onnxruntime has no way to stop it) and its result is dropped.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any, TypeVar
from weakref import ref

from service.engine.appointments import Visitor
from service.engine.batcher import Batcher
from service.engine.counters import Counters
from service.engine.deadline import deadline, until
from service.engine.executor import Executor, too_late
from service.engine.layout import Array, Layout, Tensors
from service.engine.limits import Limits
from service.engine.request import Request
from service.engine.schedule import Call
from service.engine.seats import Seats
from service.engine.sessions.session import Session
from service.engine.verification.shapes import doubling
from service.manifest import Manifest

DAY_S = 86_400.0
Result = TypeVar("Result")
_visitor: ContextVar[Visitor | None] = ContextVar("visitor", default=None)


class Runner:
    """Every method may be called from any thread, `run` and `call` from any event loop."""

    def __init__(self, *, threads: int = 1, limits: Limits | None = None) -> None:
        """`threads` is how many batches are computed at the same time."""
        self.limits = limits or Limits()
        self._executor = Executor(threads, self.limits)
        self.judged = self._executor.judged  # paths: a request there might be refused before it is read; see `knock`
        self._seats = Seats(self.limits.max_generations)
        self._batchers: dict[int, Batcher] = {}  # by the id of a session that lives
        self._counters: dict[tuple[str, str], Counters] = {}

    @property
    def is_busy(self) -> bool:
        """May a request have to wait?"""
        return self._executor.is_busy

    def stuck_at(self) -> int | None:
        """While nothing more could be begun: a number that changes with whatever ends."""
        return self._executor.stuck_at()

    def knock(
        self, path: str, address: str, timeout_s: float | None, lag_s: float = 0.0, line_s: float = 0.0
    ) -> Visitor | float:
        """Before anything of a request is read: who may go on, or for how many seconds it is to stay away.

        `address` is who asks, `lag_s` how long it has to wait until it is read, and `line_s` how much of that in a line
        that does not get shorter. Room may be kept for the visitor until what it asks is run, or `forget` is called.
        """
        now = time.monotonic()
        visitor = Visitor(path, address, now + (self.limits.timeout_s if timeout_s is None else timeout_s))
        seconds = self._executor.stay_away_s(visitor, now)
        if not seconds:
            refusal = self._executor.knock(visitor, now, lag_s, line_s)
            seconds = 0.0 if refusal is None else refusal.retry_after_s or 1.0
        return seconds or visitor

    def begin(self) -> None:
        """This task begins with a request, in a context that may be that of another: nothing of that one holds here."""
        if deadline() is not None:
            until(None)
        if _visitor.get() is not None:
            _visitor.set(None)

    def read(self, visitor: Visitor | None, path: str, address: str, body: bytes) -> Visitor:
        """The same for what this task runs from now on, before anybody reads what its body says; to be asked if busy.

        Raises EkibenError overloaded. Whoever is refused is told when to come back, and let in before others when it
        does.
        """
        if visitor is None:
            visitor = Visitor(path, address, deadline() or time.monotonic() + self.limits.timeout_s)
        visitor.body = body
        refusal = self._executor.knock(visitor, time.monotonic())
        if refusal is not None:
            raise refusal
        _visitor.set(visitor)
        return visitor

    def forget(self, visitor: Visitor) -> None:
        """It was answered, or will never be."""
        self._executor.forget(visitor)

    async def run(
        self,
        session: Session,
        inputs: Tensors,
        outputs: Sequence[str] | None = None,
        *,
        items: str = "",
        came: float | None = None,
    ) -> dict[str, Array]:
        """`session.run`, perhaps in a batch with rows of other requests; row i of an answer is of row i of the inputs.

        `items` is the JSON pointer of the list that the rows were sent in; faults point into it. If there is no
        deadline, the runner's own limit counts from when the request `came` (`time.monotonic`), or from now. Raises
        ValueError if an input does not fit, EkibenError: invalid-request for numbers that are not finite, overloaded,
        timeout, not-ready, or internal if the model fails on some of the rows.
        """
        batcher = self._batchers.get(id(session)) or self._open(session)
        layout = batcher.layout
        num_rows = layout.check(inputs)
        loop = asyncio.get_running_loop()
        executor = self._executor
        now = time.monotonic()
        end = deadline() or (now if came is None else came) + self.limits.timeout_s
        if end <= now:
            batcher.counters.refused["late"] += 1
            raise too_late()
        visitor = _visitor.get()
        if visitor is not None and visitor.crowded:
            executor.judge(visitor, batcher, num_rows, layout.num_steps(inputs), now)
        if executor.is_quiet(loop) and batcher.is_quick(num_rows, layout.num_steps(inputs)):
            answer = executor.run_alone(batcher, session, inputs, outputs, num_rows)
            if answer is not None:
                return answer
        request = Request(
            session, batcher, inputs, outputs,
            num_rows=num_rows, items=items, arrived=now, deadline=end, loop=loop, visitor=visitor,
        )  # fmt: skip
        executor.arrive(request)
        try:
            return await request.future
        finally:
            executor.leave(request)
            del request  # its future holds the error, whose trace leads back here

    async def call(self, function: Callable[..., Result], *args: Any) -> Result:
        """Any other work that belongs beside the model, such as a step of a decoder."""
        loop = asyncio.get_running_loop()
        call = Call(function, args, loop, deadline() or time.monotonic() + self.limits.timeout_s)
        self._executor.submit(call)
        try:
            return await call.future
        finally:
            self._executor.withdraw(call)
            del call

    def generating(self, num_rows: int) -> AbstractContextManager[None]:
        """Holds the seats of these rows for as long as their generation lasts.

        Raises EkibenError: overloaded if they are taken, not-ready if the runner was stopped.
        """
        self._executor.refuse_if_stopped()
        return self._seats.take(num_rows)

    def grid(self, session: Session) -> list[tuple[int, int]]:
        """The batches that are worth running before the first request: (rows, steps; 0 where a model has none)."""
        batcher = self._batchers.get(id(session)) or self._open(session)
        max_items, max_steps = session.manifest.limits.max_items, session.manifest.limits.max_steps
        lengths = batcher.layout.length_buckets or (
            doubling(8, max_steps) if batcher.layout.ragged and max_steps else (0,)
        )
        return [
            (num_rows, num_steps)
            for num_steps in lengths
            for num_rows in doubling(1, min(batcher.room(num_steps), max_items))
        ]

    def observe(self, session: Session, num_rows: int, num_steps: int, seconds: float) -> None:
        """Prime the latency model: `session.run` of this shape took so long. 0 steps where a model has none."""
        batcher = self._batchers.get(id(session)) or self._open(session)
        self._executor.observe(batcher, num_rows, num_steps, seconds)

    def count_steps(self, session: Session, num_rows: int) -> None:
        """So many texts of this language model were given one more token."""
        self._executor.count_steps(self._counters_of(session.manifest), num_rows)

    def counters(self) -> list[Counters]:
        """What was done so far, one for each version of a model that was ever asked for."""
        return list(self._counters.values())

    @property
    def pending(self) -> int:
        """Requests and calls that have arrived and are not answered yet."""
        return self._executor.pending

    def stop(self) -> None:
        """Refuse new requests and generations with not-ready; go on with those that were admitted."""
        self._executor.stopped = True

    async def drained(self, timeout_s: float) -> bool:
        """Wait until nothing is pending; False if that takes longer than `timeout_s`."""
        end = time.monotonic() + timeout_s
        while self.pending and time.monotonic() < end:
            await asyncio.sleep(0.005)
        return not self.pending

    def close(self, timeout_s: float = 5.0) -> None:
        """Drop what has not begun, wait for what has, at most `timeout_s` (its thread is left behind)."""
        self._executor.close(timeout_s)

    def _open(self, session: Session) -> Batcher:
        manifest, key = session.manifest, id(session)
        layout = Layout(manifest, getattr(session, "length_buckets", None))
        batcher = Batcher(layout, self.limits, self._counters_of(manifest), self._executor.admission)
        batcher.session = ref(session, lambda _: self._batchers.pop(key, None))
        return self._batchers.setdefault(key, batcher)

    def _counters_of(self, manifest: Manifest) -> Counters:
        name, version = key = manifest.name, manifest.version
        return self._counters.get(key) or self._counters.setdefault(key, Counters(model=name, version=version))


def patient_runner() -> Runner:
    """A runner for work that nobody waits for at a door: nothing of it is ever too late."""
    return Runner(limits=Limits(timeout_s=DAY_S))
