"""The routes as an RSGI application, granian's interface; other paths go to the ASGI application behind the router."""

import asyncio
import time
from typing import Any

from granian.rsgi import HTTPProtocol, ProtocolClosed  # type: ignore[attr-defined]  # re-exported, not listed
from granian.rsgi import Scope as RsgiScope

from service.engine.context import RequestContext
from service.errors import EkibenError
from service.http.granian.send_queue import PacedTransport
from service.http.router import Router, find_route
from service.http.wire.asgi import Message
from service.http.wire.messages import (
    UNREADABLE,
    ClientDisconnectedError,
    Reserve,
    Response,
    SendPart,
    StreamedResponse,
    body_too_large,
    declared_length,
    incomplete_body,
    without_slash,
)


class RsgiRequest:
    __slots__ = (
        "_body", "_headers", "_protocol", "_scope", "_stream",
        "context", "method", "path", "received_at", "reply_headers", "reserved_bytes",
    )  # fmt: skip

    def __init__(self, scope: RsgiScope, protocol: HTTPProtocol) -> None:
        self._scope = scope
        self._protocol = protocol
        self._headers = scope.headers
        self._stream: PacedTransport | None = None
        self._body: Any = None  # granian's future of a body that was requested and is not awaited yet
        self.method = scope.method
        self.path = without_slash(scope.path)
        self.received_at = time.monotonic()
        self.context: RequestContext | None = None
        self.reserved_bytes = 0
        self.reply_headers: list[tuple[str, str]] = []

    @property
    def query(self) -> str:
        return self._scope.query_string

    @property
    def client(self) -> str:
        return self._scope.client

    @property
    def http_version(self) -> str:
        return self._scope.http_version

    def values(self, name: str) -> list[str]:
        return self._headers.get_all(name)  # type: ignore[attr-defined]  # which is not declared

    def header(self, name: str) -> str:
        if name not in self._headers:
            return ""
        value: str | None = self._headers.get(name)
        return UNREADABLE if value is None else value

    def fetch(self, limit: int, reserve: Reserve) -> None:
        """Ask granian for a body of declared length, for `body` to await.

        Raises EkibenError("body-too-large"), or that of `reserve`.
        """
        length = declared_length(self, limit)
        if length is not None and "transfer-encoding" not in self._headers:
            reserve(self, length)
            self._body = self._protocol()

    async def body(self, limit: int, reserve: Reserve) -> bytes:
        try:
            if self._body is None:
                self.fetch(limit, reserve)
            if self._body is not None:
                try:
                    return await self._body
                finally:
                    # An error of the future holds this frame, so granian's future would never be freed.
                    self._body = None
            parts, size, num_empty = [], 0, 0
            async for part in self._protocol:
                parts.append(part)
                size += len(part)
                num_empty += not part
                if size > limit:
                    raise body_too_large(f"more than {limit} bytes", limit)
                reserve(self, size)
            # granian ends every body with an empty part, and gives another one for a chunk that it cannot read, but
            # also for trailers: a body with trailers is refused, because it may be one that broke off.
            if num_empty > 1:
                raise ClientDisconnectedError
            return b"".join(parts)
        except ProtocolClosed:
            raise ClientDisconnectedError from None

    def drop(self) -> None:
        """End a stream, and stop reading a body that was not awaited: nothing else limits how long it may take."""
        if self._stream is not None:
            self._stream.end()
        if self._body is not None:
            self._body.cancel()

    def disconnected(self) -> "asyncio.Future[None]":
        disconnected: Any = self._protocol.client_disconnect()  # behaves like a future, so it needs no task
        if not hasattr(disconnected, "add_done_callback"):
            # granian returns a bare awaitable for a client that has already disconnected.
            disconnected = asyncio.get_running_loop().create_future()
            disconnected.set_result(None)
        return disconnected

    async def start_stream(self, response: StreamedResponse) -> SendPart:
        headers = [("content-type", response.content_type), *response.headers, *self.reply_headers]
        transport = self._protocol.response_stream(200, headers)
        self._stream = PacedTransport(transport, server=self._scope.server, client=self._scope.client)
        return self._stream.send_part

    async def end_stream(self) -> None:
        """`drop` ends it."""


async def answer(router: Router, scope: RsgiScope, protocol: HTTPProtocol, request: RsgiRequest | None = None) -> None:
    """Answer one request; `request` is what the pre-admission hook made of it, if there is a hook."""
    request = request or RsgiRequest(scope, protocol)
    route = find_route(request.path)
    if route is None:
        refusal = router.refuse_malformed(request)
        if refusal is None:
            await _pass_on(router, request, scope, protocol)
        else:
            send_response(protocol, refusal, request.reply_headers)
        return
    try:
        response = await router.respond(route, request)
        if response is not None:
            send_response(protocol, response, request.reply_headers)
    except ClientDisconnectedError:
        # A client that broke off its body may still read. Without a response granian would send an empty 500.
        send_response(protocol, route.error_format(incomplete_body()), request.reply_headers)
    finally:
        request.drop()


def send_response(protocol: HTTPProtocol, response: Response, reply_headers: list[tuple[str, str]]) -> None:
    headers = [("content-type", response.content_type), *response.headers, *reply_headers]
    protocol.response_bytes(response.status, headers, response.body)


async def _pass_on(router: Router, request: RsgiRequest, scope: RsgiScope, protocol: HTTPProtocol) -> None:
    """Have the application behind the router answer the request."""
    start: Message = {}
    transport: Any = None
    has_received = False

    async def receive() -> Message:
        nonlocal has_received
        if has_received:
            await protocol.client_disconnect()
            return {"type": "http.disconnect"}
        has_received = True
        try:
            body = await request.body(router.state().max_body_bytes, router.state().bodies.reserve)
        except (EkibenError, ClientDisconnectedError):
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": body, "more_body": False}

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

    asgi_scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": scope.http_version,
        "method": scope.method,
        "scheme": scope.scheme,
        "path": request.path,
        "query_string": scope.query_string.encode("latin-1"),
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in scope.headers.items()],
        "client": _address(scope.client),
        "server": _address(scope.server),
    }
    try:
        await router.app(asgi_scope, receive, send)
    finally:
        router.state().bodies.release(request)


def _address(text: str) -> tuple[str, int] | None:
    host, _, port = text.rpartition(":")
    return (host, int(port)) if port.isdecimal() else None
