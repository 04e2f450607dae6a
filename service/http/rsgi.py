"""The routes as an RSGI application, granian's own interface: a body comes and an answer goes in one call each.

What is not theirs goes to the ASGI application behind them.
"""

import asyncio
import logging
import time
from contextvars import Context
from typing import Any

from granian.rsgi import HTTPProtocol, ProtocolClosed  # type: ignore[attr-defined]  # re-exported, not listed
from granian.rsgi import Scope as RsgiScope

from service.engine.admission.retry_schedule import Visitor
from service.errors import EkibenError
from service.http.front import Front, find_route
from service.http.line import Line
from service.http.route import InferenceRoute
from service.http.wire.asgi import App, Message, Scope
from service.http.wire.messages import UNREADABLE, ClientDisconnectedError, Response, body_too_large, declared_length

log = logging.getLogger(__name__)

SHARE_OF_LAST = 0.05  # of what was measured last in an average


class RsgiRequest:
    __slots__ = ("_body", "_headers", "_protocol", "_scope", "method", "path", "received_at", "visitor")

    def __init__(self, scope: RsgiScope, protocol: HTTPProtocol) -> None:
        self._scope = scope
        self._protocol = protocol
        self._headers = scope.headers
        self._body: asyncio.Future[bytes] | None = None  # asked for, awaited by nobody yet
        self.method = scope.method
        self.path = scope.path
        self.received_at = time.monotonic()
        self.visitor: Visitor | None = None

    @property
    def query(self) -> str:
        return self._scope.query_string

    @property
    def client(self) -> str:
        client: str = self._scope.client
        return client

    def header(self, name: str) -> str:
        if name not in self._headers:
            return ""
        value: str | None = self._headers.get(name)
        return UNREADABLE if value is None else value

    def fetch(self, limit: int) -> None:
        """Have a body of known length read, for `body` to find it. Raises EkibenError("body-too-large")."""
        if declared_length(self, limit) is not None:
            body: Any = self._protocol()
            self._body = body

    async def body(self, limit: int) -> bytes:
        try:
            if self._body is None:
                self.fetch(limit)
            if self._body is not None:
                try:
                    return await self._body
                finally:
                    self._body = None  # what it raises leads back here: granian's futures would never be freed
            parts, size = [], 0
            async for part in self._protocol:
                parts.append(part)
                size += len(part)
                if size > limit:
                    raise body_too_large(f"more than {limit}", limit)
            return b"".join(parts)
        except ProtocolClosed:
            raise ClientDisconnectedError from None

    def drop(self) -> None:
        """A body that nobody awaited is read no further: nothing would limit how long it takes."""
        if self._body is not None:
            self._body.cancel()

    def disconnected(self) -> "asyncio.Future[None]":
        gone: Any = self._protocol.client_disconnect()  # it has what a future has, so it needs no task
        if not hasattr(gone, "add_done_callback"):  # unless the client is known to have left
            gone = asyncio.get_running_loop().create_future()
            gone.set_result(None)
        return gone


async def handle(front: Front, scope: RsgiScope, protocol: HTTPProtocol, request: RsgiRequest | None = None) -> None:
    """Answer one request, which `request` is if somebody has looked at it already."""
    request = request or RsgiRequest(scope, protocol)
    route = find_route(request.path)
    if route is None:
        return await _pass_on(front.app, scope, protocol)
    try:
        _respond(protocol, await front.answer(route, request))
    except ClientDisconnectedError:
        return None
    finally:
        request.drop()
    return None


class Door:
    """What granian's own thread does with each request: refuse it there and then, or have the event loop answer.

    The body is asked for here, so that it is there when the event loop wants it, which would else wait once more.
    """

    def __init__(self, front: Front, loop: asyncio.AbstractEventLoop, context: Context, _: Any) -> None:
        self._front = front
        self._loop = loop
        self._context = context
        self._handed_over = self._begun = 0  # each written by one thread
        self._each_s = 0.0  # that a request handed over waits for each before it
        self._line = Line()

    def __call__(self, watcher: Any) -> None:
        request = RsgiRequest(watcher.scope, watcher.proto)
        ahead = self._handed_over - self._begun
        try:
            behind_s = ahead * self._each_s
            line_s = self._line.look(watcher.proto, request.received_at, behind_s)
            if line_s or request.path in self._front.judged:
                refusal = self._front.knock(request, max(line_s, behind_s), line_s)
                if refusal is not None:
                    _respond(watcher.proto, refusal)
                    return
            route = find_route(request.path)
            if isinstance(route, InferenceRoute) and request.method in route.methods:
                request.fetch(self._front.max_body_bytes)
        except EkibenError:
            pass  # it is told when it is answered
        except Exception:  # which would end granian's thread
            log.exception("a request that nobody looked at before it is answered")
        self._handed_over += 1
        self._loop.call_soon_threadsafe(self._begin, watcher, request, ahead + 1, context=self._context)

    def _begin(self, watcher: Any, request: RsgiRequest, place: int) -> None:
        self._begun += 1
        self._each_s += SHARE_OF_LAST * ((time.monotonic() - request.received_at) / place - self._each_s)
        watcher.taskref(self._loop.create_task(_watched(self._front, watcher, request)))


async def _watched(front: Front, watcher: Any, request: RsgiRequest) -> None:
    """`handle`, for granian to know how it ended."""
    try:
        await handle(front, watcher.scope, watcher.proto, request)
    except BaseException as error:  # noqa: BLE001 - as granian does
        watcher.err(error)
        return
    watcher.done()


def _respond(protocol: HTTPProtocol, reply: Response) -> None:
    protocol.response_bytes(reply.status, [("content-type", reply.content_type), *reply.headers], reply.body)


async def _pass_on(app: App, scope: RsgiScope, protocol: HTTPProtocol) -> None:
    """Have an ASGI application answer."""
    start: Message = {}
    transport: Any = None
    asked = False

    async def receive() -> Message:
        nonlocal asked
        if asked:
            await protocol.client_disconnect()
            return {"type": "http.disconnect"}
        asked = True
        return {"type": "http.request", "body": await protocol(), "more_body": False}

    async def send(message: Message) -> None:
        nonlocal start, transport
        if message["type"] == "http.response.start":
            start = message
            return
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in start["headers"]]
        body, more = message.get("body", b""), message.get("more_body", False)
        if transport is None and not more:
            protocol.response_bytes(start["status"], [pair for pair in headers if pair[0] != "content-length"], body)
            return
        if transport is None:
            transport = protocol.response_stream(start["status"], headers)
        if body:
            await transport.send_bytes(body)

    await app(_asgi_scope(scope), receive, send)


def _asgi_scope(scope: RsgiScope) -> Scope:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": scope.http_version,
        "method": scope.method,
        "scheme": scope.scheme,
        "path": scope.path,
        "raw_path": scope.path.encode(),
        "root_path": "",
        "query_string": scope.query_string.encode("latin-1"),
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in scope.headers.items()],
        "client": _address(scope.client),
        "server": _address(scope.server),
        "extensions": {},
        "state": {},
    }


def _address(text: str) -> tuple[str, int] | None:
    host, _, port = text.rpartition(":")
    return (host, int(port)) if port.isdecimal() else None
