"""The engine's entry point: the runner owns one device, and all computing there goes through it.

Work-conserving: queued work starts as soon as a thread is free, the earliest deadline first; batches form only while
all threads are busy. A request that is cancelled or expires loses the rows that have not started. Rows that have
started run to their end, because onnxruntime cannot stop them, and their results are dropped.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar
from weakref import ref

from service.engine.admission.generations import check_room
from service.engine.batching.collate import Array, Collator, Tensors
from service.engine.batching.queue import BatchQueue
from service.engine.batching.request import Request
from service.engine.context import RequestContext, Timing
from service.engine.generation.detokenizer import Decode
from service.engine.generation.events import GenerationParams
from service.engine.generation.loop import DecodeLoop
from service.engine.generation.sequence import SequenceState
from service.engine.generation.stream import Generation
from service.engine.limits import Limits
from service.engine.metrics import Counters
from service.engine.scheduling.coalescer import Coalescer
from service.engine.scheduling.device_task import DeviceTask
from service.engine.scheduling.executor import Executor
from service.engine.scheduling.inline import InlineRunner
from service.engine.sessions.session import Session
from service.engine.verification.shapes import doubling
from service.errors import EkibenError, deadline_passed
from service.manifest import Manifest
from service.tuning import lower_priority

DAY_S = 86_400.0
Result = TypeVar("Result")


class Runner:
    """Every method may be called from any thread, `run` and `call` from any event loop."""

    def __init__(self, *, threads: int = 1, limits: Limits | None = None) -> None:
        """`threads` is the number of batches that compute at the same time."""
        self.limits = limits or Limits()
        self._executor = Executor(threads, self.limits)
        self._host = Executor(1, self.limits, name="host", prepare_thread=lower_priority)
        self.admission = self._executor.admission  # for requests that are not read yet
        self._inline = InlineRunner(self._executor)
        self._coalescer = Coalescer(self._executor, self._inline)
        self._queues: dict[int, BatchQueue] = {}  # by the id of a living session
        self._loops: dict[int, tuple[DecodeLoop, object]] = {}  # by the same, with a weak reference to it
        self._counters: dict[tuple[str, str], Counters] = {}

    def new_context(
        self, *, received_at: float | None = None, timeout_s: float | None = None, client: str = "", route: str = ""
    ) -> RequestContext:
        """The context of a request that was received now and has the default timeout, unless told otherwise."""
        received_at = time.monotonic() if received_at is None else received_at
        return RequestContext(received_at, timeout_s, self.limits.timeout_s, client, route)

    def progress_token(self) -> int | None:
        """A number that changes whenever a computation ends; None while another one could start."""
        return self._executor.progress_token()

    async def run(
        self,
        session: Session,
        inputs: Tensors,
        outputs: Sequence[str] | None = None,
        *,
        context: RequestContext | None = None,
        items: str = "",
    ) -> dict[str, Array]:
        """`session.run`, perhaps in a batch with rows of other requests; row i of an answer belongs to row i of the
        inputs.

        `items` is the JSON pointer of the list that the rows were sent in; faults point into it. Without a context the
        request is received now. Raises ValueError if an input does not fit the manifest, EkibenError: invalid-request
        for numbers that are not finite, overloaded, timeout, not-ready, not-finite if the model computes NaN or
        infinity for some rows, or internal if it fails on some. With an output of whole numbers, the answer also has
        all outputs of floats.
        """
        counters = (self._queues.get(id(session)) or self._open(session)).counters
        counters.last_request_at = started_at = time.monotonic()
        try:
            answer = await self._run(session, inputs, outputs, context=context, items=items)
        except BaseException:
            counters.failed.add(time.monotonic() - started_at)
            raise
        counters.succeeded.add(time.monotonic() - started_at)
        return answer

    async def _run(
        self,
        session: Session,
        inputs: Tensors,
        outputs: Sequence[str] | None,
        *,
        context: RequestContext | None,
        items: str,
    ) -> dict[str, Array]:
        queue = self._queues.get(id(session)) or self._open(session)
        collator = queue.collator
        num_rows = collator.validate(inputs)
        num_steps = collator.num_steps(inputs)
        outputs = collator.output_check.computed(outputs)
        loop = asyncio.get_running_loop()
        now = time.monotonic()
        if context is None:
            context = self.new_context(received_at=now)
        if context.deadline <= now:
            queue.counters.refused["late"] += 1
            raise deadline_passed()
        if self._coalescer.is_idle() and queue.is_quick(num_rows, num_steps):
            answer = self._inline.run_request(queue, session, inputs, outputs, num_rows=num_rows, num_steps=num_steps)
            if answer is not None:
                if context.timings is not None:
                    context.timings.append(Timing(now, now, time.monotonic()))
                return answer
        request = Request(
            session, queue, inputs, outputs,
            num_rows=num_rows, num_steps=num_steps, items=items, arrived_at=now, loop=loop, context=context,
        )  # fmt: skip
        self._coalescer.add(queue, request)
        try:
            return await request.future
        finally:
            self._executor.finish(queue, request)
            del request  # its future holds the error, whose traceback holds this frame

    async def call(self, function: Callable[..., Result], *args: Any, context: RequestContext | None = None) -> Result:
        """Run other work of a model, such as a step of a decoder, on a device thread."""
        return await self._submit(self._executor, function, args, context)

    async def call_host(
        self, function: Callable[..., Result], *args: Any, context: RequestContext | None = None
    ) -> Result:
        """Run work that needs no device, such as tokenizing, on a thread that delays neither batches nor the loop."""
        return await self._submit(self._host, function, args, context)

    def generate(
        self,
        session: Session,
        decode: Decode,
        prompts: Sequence[Sequence[int]],
        params: GenerationParams,
        *,
        choices: Sequence[int] | None = None,
        is_streamed: bool = True,
        context: RequestContext | None = None,
    ) -> Generation:
        """Continue every prompt; iterate over the events in a `with` block, on the event loop that called this.

        Each prompt is generated as the choice with its number, by default 0; equal prompts differ in their choice only.
        Raises ValueError for a prompt that does not fit the context, EkibenError overloaded or not-ready.
        """
        loop, _ = self._loops.get(id(session)) or self._open_loop(session)
        context = context or self.new_context()
        check_room(len(prompts), loop.num_rows, tuple(loop.durations_s), self.limits, context)
        generation = Generation(context, is_streamed=is_streamed)
        rows = [
            SequenceState(index, prompt, params, choice=choice, decode=decode, session=session, sink=generation)
            for index, (prompt, choice) in enumerate(zip(prompts, choices or [0] * len(prompts), strict=True))
        ]
        generation.start(rows)
        try:
            if loop.submit(rows):
                self._executor.add_loop(loop)
        except EkibenError:
            generation.close()
            raise
        return generation

    def grid(self, session: Session) -> list[tuple[int, int]]:
        """The batches that are worth running before the first request: (rows, steps; 0 where a model has none)."""
        queue = self._queues.get(id(session)) or self._open(session)
        max_items, max_steps = session.manifest.limits.max_items, session.manifest.limits.max_steps
        lengths = queue.collator.length_buckets or (
            doubling(8, max_steps) if queue.collator.is_ragged and max_steps else (0,)
        )
        return [
            (num_rows, num_steps)
            for num_steps in lengths
            for num_rows in doubling(1, min(queue.capacity(num_steps), max_items))
        ]

    def observe(self, session: Session, num_rows: int, num_steps: int, seconds: float) -> None:
        """Record in the cost model that `session.run` took `seconds` at this shape; `num_steps` is 0 without steps."""
        queue = self._queues.get(id(session)) or self._open(session)
        with self._executor.lock:
            queue.observe(num_rows, num_steps, seconds)

    def counters(self) -> list[Counters]:
        """The counters of each version of a model that has received a request."""
        return list(self._counters.values())

    def close(self, timeout_s: float = 5.0) -> None:
        """Drop what has not started; wait at most `timeout_s` for what has (a hung thread is left behind)."""
        self._host.close(0.0)
        self._executor.close(timeout_s)

    async def _submit(
        self, executor: Executor, function: Callable[..., Result], args: tuple[Any, ...], context: RequestContext | None
    ) -> Result:
        deadline = (context or self.new_context()).deadline
        if context is not None and context.timings is not None:
            function = partial(_timed, function, context.timings, time.monotonic())
        task = DeviceTask(function, args, asyncio.get_running_loop(), deadline)
        executor.submit(task)
        try:
            return await task.future
        finally:
            executor.withdraw(task)
            del task

    def _open(self, session: Session) -> BatchQueue:
        manifest, key = session.manifest, id(session)
        collator = Collator(manifest, getattr(session, "length_buckets", None))
        queue = BatchQueue(collator, self.limits, self._counters_of(manifest), self._executor.backlog)
        queue.session = ref(session, lambda _: self._queues.pop(key, None))
        return self._queues.setdefault(key, queue)

    def _open_loop(self, session: Session) -> tuple[DecodeLoop, object]:
        key = id(session)
        counters = self._counters_of(session.manifest).generation
        loop = DecodeLoop(session.manifest, self.limits, counters, session.device)
        return self._loops.setdefault(key, (loop, ref(session, lambda _: self._loops.pop(key, None))))

    def _counters_of(self, manifest: Manifest) -> Counters:
        name, version = key = manifest.name, manifest.version
        return self._counters.get(key) or self._counters.setdefault(key, Counters(model=name, version=version))


def _timed(function: Callable[..., Result], timings: list[Timing], queued_at: float, *args: Any) -> Result:
    """Call the function and note when; other threads may do the same for one request."""
    started_at = time.monotonic()
    try:
        return function(*args)
    finally:
        timings.append(Timing(queued_at, started_at, time.monotonic()))


def untimed_runner() -> Runner:
    """A runner for batch work, whose requests have a timeout of one day."""
    return Runner(limits=Limits(timeout_s=DAY_S))
