"""The part of ASGI that the routes need: request headers, a body that is read once, and a response in two messages."""

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from http import HTTPStatus
from typing import Any

from service.engine.context import Permit, RequestContext
from service.http.identity.request_id import identify
from service.http.wire.messages import (
    UNREADABLE,
    ClientDisconnectedError,
    Reserve,
    Response,
    SendPart,
    StreamedResponse,
    body_too_large,
    declared_length,
    without_slash,
)

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class AsgiRequest:
    __slots__ = (
        "_headers", "_receive", "_scope", "_send",
        "context", "id", "is_admitted", "key_name", "key_permit", "method", "observation", "path", "received_at",
        "reply_headers", "reserved_bytes", "trace",
    )  # fmt: skip

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        # Reversed, so that the first of several headers of one name is kept.
        self._headers: dict[bytes, bytes] = dict(reversed(scope["headers"]))
        self.method: str = scope["method"]
        self.path: str = without_slash(scope["path"])
        self.received_at = time.monotonic()
        self.context: RequestContext | None = None
        self.key_name = ""
        self.key_permit: Permit | None = None
        self.is_admitted = False
        self.reserved_bytes = 0
        self.observation: Any = None
        self.id, self.trace, self.reply_headers = identify(
            self.header("x-request-id") if b"x-request-id" in self._headers else "",
            self.header("traceparent") if b"traceparent" in self._headers else "",
        )

    @property
    def query(self) -> str:
        return str(self._scope["query_string"], "latin-1")

    @property
    def client(self) -> str:
        host, port = self._scope.get("client") or ("", 0)
        return f"{host}:{port}"

    @property
    def http_version(self) -> str:
        return str(self._scope["http_version"])

    def values(self, name: str) -> list[str]:
        key = name.encode()
        values = (value for header, value in self._scope["headers"] if header == key)
        return [value.decode().strip(" \t") for value in values if value.isascii()]

    def header(self, name: str) -> str:
        value = self._headers.get(name.encode())
        if value is None:
            return ""
        # Optional white space: RFC 9110, section 5.6.3.
        return value.decode().strip(" \t") if value.isascii() else UNREADABLE

    async def body(self, limit: int, reserve: Reserve) -> bytes:
        reserve(self, declared_length(self, limit) or 0)
        message = await self._receive()
        parts: list[bytes] = []
        size = 0
        while message["type"] == "http.request":
            part: bytes = message.get("body", b"")
            size += len(part)
            if size > limit:
                raise body_too_large(f"more than {limit} bytes", limit)
            reserve(self, size)
            if not message.get("more_body"):
                return b"".join([*parts, part]) if parts else part
            parts.append(part)
            message = await self._receive()
        raise ClientDisconnectedError

    def disconnected(self) -> asyncio.Future[None]:
        return asyncio.ensure_future(self._wait_for_disconnect())

    async def _wait_for_disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def start_stream(self, response: StreamedResponse) -> SendPart:
        headers = [
            (b"content-type", response.content_type.encode()),
            *((name.encode(), value.encode("latin-1")) for name, value in (*response.headers, *self.reply_headers)),
        ]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        return self._send_part

    async def _send_part(self, part: bytes) -> None:
        # The server waits here while its buffer for the connection is full.
        await self._send({"type": "http.response.body", "body": part, "more_body": True})

    async def end_stream(self) -> None:
        await self._send({"type": "http.response.body", "body": b""})


async def send_response(
    send: Send, response: Response, reply_headers: Sequence[tuple[str, str]] = (), *, with_body: bool = True
) -> None:
    # Of a 304, it would be the length of the body that the client has (RFC 9110, 8.6).
    length = [] if response.status == HTTPStatus.NOT_MODIFIED else [(b"content-length", b"%d" % len(response.body))]
    headers = [
        (b"content-type", response.content_type.encode()),
        *length,
        *((name.encode(), value.encode("latin-1")) for name, value in (*response.headers, *reply_headers)),
    ]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body if with_body else b""})
