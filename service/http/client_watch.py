"""Requests are cancelled when their client disconnects or their body takes too long.

One timer watches all requests of an event loop, so a request that is answered at once costs one dictionary entry.
"""

import asyncio
import math
import time
from contextvars import Context

from service.errors import EkibenError
from service.http.wire.messages import ClientDisconnectedError, HttpRequest

TICK_S = 0.01
SLOW_CLIENT_S = 5.0  # after the deadline, to read the end of a stream


class RequestScope:
    """The task that answers one request."""

    __slots__ = ("_stream_end", "_task", "abort_error", "body_timeout_s", "disconnected", "has_body", "request")

    def __init__(self, request: HttpRequest, task: asyncio.Task[object], body_timeout_s: float) -> None:
        self.request = request
        self.body_timeout_s = body_timeout_s  # from arrival to the end of the body
        self.has_body = False
        self.abort_error: Exception | None = None
        self._task = task
        self._stream_end = math.inf  # on the clock of `time.monotonic`
        self.disconnected: asyncio.Future[None] | None = None

    def abort(self, error: Exception) -> None:
        """Cancel the task; `error` is what it should raise instead of the cancellation."""
        self.abort_error = error
        self._task.cancel()

    def reason(self, cancelled: asyncio.CancelledError) -> BaseException:
        """Return the exception to raise for a cancellation: the error given to `abort`, else the cancellation itself.

        The error is kept no longer: its traceback leads to this scope, and so the request with its body would stay.
        """
        error, self.abort_error = self.abort_error, None
        if error is None:
            return cancelled
        self._task.uncancel()
        return error

    def stream_until(self, deadline: float) -> None:
        """Watch a stream, which ends itself at the deadline, unless its client does not read what is sent."""
        self._stream_end = deadline + SLOW_CLIENT_S
        self.watch_disconnect()

    def check_stream(self, now: float) -> None:
        """Treat a client that has left parts unread for too long after the deadline as disconnected."""
        if now > self._stream_end and self.abort_error is None:
            self.abort(ClientDisconnectedError())

    def watch_disconnect(self) -> None:
        """Abort the request when its client disconnects."""
        if self.disconnected is None:
            self.disconnected = self.request.disconnected()
            self.disconnected.add_done_callback(self._on_disconnected)

    def _on_disconnected(self, disconnected: "asyncio.Future[None]") -> None:
        if disconnected is self.disconnected:
            self.abort(ClientDisconnectedError())


class RequestSupervisor:
    """Watches the open requests of one event loop at a time."""

    def __init__(self, body_timeout_s: float) -> None:
        self._body_timeout_s = body_timeout_s
        self._scopes: dict[RequestScope, None] = {}
        self._loop: asyncio.AbstractEventLoop | None = None  # the one whose timer runs

    def open(self, request: HttpRequest, timeout_s: float) -> RequestScope:
        """Watch the current task until `close`; the body must arrive before the deadline of the request."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None, "every request has a task of its own"
        scope = RequestScope(request, task, min(timeout_s, self._body_timeout_s))
        self._scopes[scope] = None
        if self._loop is not loop:
            self._loop = loop
            # An empty context: the timer outlives this request, and must not keep what its context holds.
            loop.call_later(TICK_S, self._tick, loop, context=Context())
        return scope

    def close(self, scope: RequestScope) -> None:
        del self._scopes[scope]
        disconnected, scope.disconnected = scope.disconnected, None
        if disconnected is not None:
            disconnected.cancel()

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now = time.monotonic()
        try:
            for scope in self._scopes:
                if scope.has_body:
                    if scope.request.received_at < now - TICK_S:
                        scope.watch_disconnect()
                        scope.check_stream(now)
                elif scope.request.received_at < now - scope.body_timeout_s and scope.abort_error is None:
                    scope.abort(EkibenError("timeout", f"the body did not arrive within {scope.body_timeout_s:.3g} s"))
        finally:  # a request that cannot be watched must not end the timer of the others
            if self._scopes:
                loop.call_later(TICK_S, self._tick, loop)
            else:
                self._loop = None
