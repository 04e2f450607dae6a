"""The little of ASGI that the routes need: a body read once, a header, an answer in two messages.

Invariant: no more than `limit` bytes of a body are ever held; a body that announces more is refused before it is read.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from service.errors import EkibenError

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]


class ClientGoneError(Exception):
    """The client closed its connection before the whole body was here; there is nobody to answer."""


def header(scope: Scope, name: bytes) -> str:
    """The value of a header (`name` in lower case), or the empty string."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


def media_type(scope: Scope) -> str:
    """The content type without parameters, in lower case."""
    return header(scope, b"content-type").partition(";")[0].strip().lower()


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The whole body. Raises EkibenError("body-too-large"), or ClientGoneError."""
    announced = header(scope, b"content-length")
    if announced.isdecimal() and int(announced) > limit:
        raise _too_large(f"{int(announced)} bytes", limit)
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        return _within(message.get("body", b""), limit)
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


async def respond(send: Send, status: int, content_type: bytes, body: bytes, headers: Headers | None = None) -> None:
    start = [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), *(headers or [])]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": body})


def _within(body: bytes, limit: int) -> bytes:
    if len(body) > limit:
        raise _too_large(f"{len(body)} bytes", limit)
    return body


def _too_large(got: str, limit: int) -> EkibenError:
    return EkibenError("body-too-large", f"expected a body of at most {limit} bytes, got {got}")
