"""The little of ASGI that the routes need: a request's headers, its body read once, an answer in two messages."""

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from service.engine.appointments import Visitor
from service.http.wire.messages import UNREADABLE, ClientGoneError, Reply, announced, too_large

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
BLANKS = " \t"  # around a value, not of it


class AsgiRequest:
    __slots__ = ("_headers", "_receive", "_scope", "came", "method", "path", "visitor")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._scope = scope
        self._receive = receive
        self._headers: dict[bytes, bytes] = dict(reversed(scope["headers"]))  # of several the first
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.came = time.monotonic()
        self.visitor: Visitor | None = None

    @property
    def query(self) -> str:
        query: bytes = self._scope["query_string"]
        return query.decode("latin-1")

    @property
    def client(self) -> str:
        host, port = self._scope.get("client") or ("", 0)
        return f"{host}:{port}"

    def header(self, name: str) -> str:
        value = self._headers.get(name.encode(), b"")
        return value.decode().strip(BLANKS) if value.isascii() else UNREADABLE

    async def body(self, limit: int) -> bytes:
        announced(self, limit)
        message = await self._receive()
        parts: list[bytes] = []
        size = 0
        while message["type"] == "http.request":
            part: bytes = message.get("body", b"")
            size += len(part)
            if size > limit:
                raise too_large(f"more than {limit}", limit)
            if not message.get("more_body"):
                return b"".join([*parts, part]) if parts else part
            parts.append(part)
            message = await self._receive()
        raise ClientGoneError

    def gone(self) -> asyncio.Future[None]:
        return asyncio.ensure_future(self._until_gone())

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass


async def respond(send: Send, reply: Reply, *, with_body: bool = True) -> None:
    headers = [
        (b"content-type", reply.content_type.encode()),
        (b"content-length", b"%d" % len(reply.body)),
        *((name.encode(), value.encode("latin-1")) for name, value in reply.headers),
    ]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body if with_body else b""})
