"""The events of one request, on their way from the decode loop to the event loop of the request."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from service.engine.context import RequestContext, Timing
from service.engine.generation.events import EventSink, FinishReason, GenerationEvent
from service.engine.generation.sampler import TokenLogprob
from service.engine.generation.sequence import SequenceState
from service.errors import EkibenError, deadline_passed


class Generation(EventSink, AsyncIterator[GenerationEvent]):
    """Iterate over the events; every row has exactly one last event. Leaving the block cancels what is not finished.

    At the deadline of the request, the last event of each unfinished row is an error `timeout`. `is_streamed` is false
    if the request needs only the last event of each row.
    """

    def __init__(self, context: RequestContext, *, is_streamed: bool) -> None:
        self.is_streamed = is_streamed
        self.rows: Sequence[SequenceState] = ()
        self.loop = asyncio.get_running_loop()
        self._events: deque[GenerationEvent] = deque()
        self._unfinished: set[int] = set()
        self._timings = context.timings  # None once they are noted
        self._queued_at = time.monotonic()
        self._wakeup: asyncio.Future[None] | None = None
        self._timer = self.loop.call_later(max(context.deadline - time.monotonic(), 0.0), self._expire)

    def start(self, rows: Sequence[SequenceState]) -> None:
        self.rows = rows
        self._unfinished = {row.index for row in rows}

    def deliver(self, event: GenerationEvent) -> None:
        """Add an event. To be called on the event loop."""
        if event.index not in self._unfinished:
            return
        if event.is_last:
            self._unfinished.discard(event.index)
        self._events.append(event)
        if self._wakeup is not None and not self._wakeup.done():
            self._wakeup.set_result(None)

    def close(self) -> None:
        """Cancel the rows that are not finished: they take part in no step that has not begun."""
        self._timer.cancel()
        timings, self._timings = self._timings, None
        if timings is not None:
            now = time.monotonic()
            timings.extend(Timing(self._queued_at, row.started_at, now) for row in self.rows)
        for row in self.rows:
            row.is_cancelled = True

    async def __anext__(self) -> GenerationEvent:
        while not self._events:
            if not self._unfinished:
                raise StopAsyncIteration
            self._wakeup = self.loop.create_future()
            await self._wakeup
        return self._events.popleft()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def _expire(self) -> None:
        for row in self.rows:
            row.is_cancelled = True
            if row.index in self._unfinished:
                # The decode loop may still change the row, so its text is not taken: it is in earlier events.
                self.deliver(GenerationEvent(index=row.index, text="", tokens=(), error=deadline_passed()))


@dataclass(frozen=True, kw_only=True)
class Completion:
    """The continuation of one prompt: `tokens` include those of a stop string, but not a stop id."""

    text: str
    finish_reason: FinishReason
    tokens: tuple[TokenLogprob, ...]


class RowFailedError(Exception):
    """The row with this index ended with this error."""

    def __init__(self, index: int, error: EkibenError) -> None:
        super().__init__(f"row {index}: {error}")
        self.index = index
        self.error = error


async def complete(generation: Generation) -> list[Completion]:
    """Return the completion of every row; raises RowFailedError for the first row that failed."""
    parts: list[list[GenerationEvent]] = [[] for _ in generation.rows]
    with generation:
        async for event in generation:
            if event.error is not None:
                raise RowFailedError(event.index, event.error)
            parts[event.index].append(event)
    completions = []
    for events in parts:
        reason = events[-1].finish_reason
        assert reason is not None, "the last event of a row has a reason or an error"
        tokens = tuple(token for event in events for token in event.tokens)
        text = "".join(event.text for event in events)
        completions.append(Completion(text=text, finish_reason=reason, tokens=tokens))
    return completions


Delivery = tuple[EventSink, GenerationEvent]


def deliver_all(deliveries: Sequence[Delivery]) -> None:
    """Hand events to their requests, with one call on each event loop."""
    for loop in {sink.loop for sink, _ in deliveries}:
        with suppress(RuntimeError):  # the loop has ended with all its callers
            loop.call_soon_threadsafe(_deliver, [(sink, event) for sink, event in deliveries if sink.loop is loop])


def _deliver(deliveries: Sequence[Delivery]) -> None:
    for sink, event in deliveries:
        sink.deliver(event)
