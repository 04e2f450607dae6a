"""The little of ASGI that the routes need: a request's headers, its body read once, an answer in two messages.

Invariant: no more than `limit` bytes of a body are ever held; a body that announces more is refused before it is read.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, NamedTuple

from service.errors import EkibenError

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

JSON = (b"content-type", b"application/json")


class ClientGoneError(Exception):
    """The client closed its connection before its answer was there; there is nobody to answer."""


class Reply(NamedTuple):
    """What is answered; the length is added. `headers` is the list's own."""

    content_type: tuple[bytes, bytes]
    body: bytes
    headers: Headers = []  # noqa: RUF012 - nobody writes to it
    status: int = 200


class Request:
    """What the server was asked, before its body is read."""

    __slots__ = ("headers", "method", "path", "receive", "scope")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope = scope
        self.receive = receive
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])

    def header(self, name: bytes) -> str:
        """The value of a header (`name` in lower case), or the empty string."""
        return self.headers.get(name, b"").decode("latin-1")

    @property
    def media_type(self) -> str:
        """The content type without parameters, in lower case."""
        return self.header(b"content-type").partition(";")[0].strip().lower()

    async def body(self, limit: int, timeout_s: float) -> bytes:
        """The whole body. Raises EkibenError("body-too-large" or "timeout"), or ClientGoneError."""
        announced = self.headers.get(b"content-length", b"")
        if announced.isdigit() and int(announced) > limit:
            raise _too_large(f"{int(announced)} bytes", limit)
        try:
            async with asyncio.timeout(timeout_s):
                message = await self.receive()
                if message["type"] == "http.request" and not message.get("more_body"):
                    body: bytes = message.get("body", b"")
                    if len(body) > limit:
                        raise _too_large(f"{len(body)} bytes", limit)
                    return body
                return await _rest(message, self.receive, limit)
        except TimeoutError:
            raise EkibenError("timeout", f"the body did not arrive within {timeout_s:g} s") from None


async def _rest(message: Message, receive: Receive, limit: int) -> bytes:
    parts, size = [], 0
    while message["type"] == "http.request":
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise _too_large(f"more than {limit}", limit)
        if not message.get("more_body"):
            return b"".join(parts)
        message = await receive()
    raise ClientGoneError


async def respond(send: Send, reply: Reply, *, with_body: bool = True) -> None:
    body = reply.body if with_body else b""
    headers = [reply.content_type, (b"content-length", b"%d" % len(body)), *reply.headers]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _too_large(got: str, limit: int) -> EkibenError:
    return EkibenError("body-too-large", f"expected a body of at most {limit} bytes, got {got}")
