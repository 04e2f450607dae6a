"""Work for a client, as long as the client is there and tells what it wants.

Invariant: when the client leaves, or its body takes too long, the task that works for it is cancelled, so nothing that
it waits for is computed. One timer looks after all requests of an event loop: an answer that is there at once costs an
entry in a dictionary.
"""

import asyncio
import time
from contextvars import Context

from service.engine.deadline import deadline
from service.errors import EkibenError
from service.http.wire.messages import ClientDisconnectedError, HttpRequest

TICK_S = 0.01


class Work:
    """What one task does for one request."""

    __slots__ = ("_gone", "_task", "body_s", "has_body", "request", "verdict")

    def __init__(self, request: HttpRequest, task: asyncio.Task[object], body_s: float) -> None:
        self.request = request
        self.body_s = body_s  # that its body has to arrive, since the request came
        self.has_body = False
        self.verdict: Exception | None = None  # why it was ended from here
        self._task = task
        self._gone: asyncio.Future[None] | None = None

    def end(self, verdict: Exception) -> None:
        self.verdict = verdict
        self._task.cancel()

    def why(self, cancelled: asyncio.CancelledError) -> BaseException:
        """What to raise instead of the cancellation, which is itself if it is somebody else's."""
        if self.verdict is None:
            return cancelled
        self._task.uncancel()
        return self.verdict

    def look(self) -> None:
        """Have an eye on the client from now on."""
        if self._gone is None:
            self._gone = self.request.disconnected()
            self._gone.add_done_callback(self._left)

    def done(self) -> None:
        gone, self._gone = self._gone, None
        if gone is not None:
            gone.cancel()

    def _left(self, gone: "asyncio.Future[None]") -> None:
        if gone is self._gone:
            self.end(ClientDisconnectedError())


class Watch:
    """A body must be here within `body_timeout_s`. For one event loop at a time."""

    def __init__(self, body_timeout_s: float) -> None:
        self._body_timeout_s = body_timeout_s
        self._works: dict[Work, None] = {}
        self._loop: asyncio.AbstractEventLoop | None = None  # whose timer runs

    def begin(self, request: HttpRequest, timeout_s: float) -> Work:
        """To be called by the task that works, and followed by `end`; its body must be here before the deadline, which
        is `timeout_s` after the request came if there is no other.
        """
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None, "every request has a task of its own"
        end = deadline()
        body_s = timeout_s if end is None else end - request.received_at
        work = Work(request, task, min(body_s, self._body_timeout_s))
        self._works[work] = None
        if self._loop is not loop:
            self._loop = loop
            loop.call_later(TICK_S, self._tick, loop, context=Context())  # it outlives this request
        return work

    def end(self, work: Work) -> None:
        del self._works[work]
        work.done()

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now = time.monotonic()
        try:
            for work in self._works:
                if work.has_body:
                    if work.request.received_at < now - TICK_S:
                        work.look()
                elif work.request.received_at < now - work.body_s and work.verdict is None:
                    work.end(EkibenError("timeout", f"the body did not arrive within {work.body_s:.3g} s"))
        finally:  # whatever one client does, the others are looked after
            if self._works:
                loop.call_later(TICK_S, self._tick, loop)
            else:
                self._loop = None
