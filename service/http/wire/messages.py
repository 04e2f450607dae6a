"""HTTP requests and responses as the routes see them, independent of the server interface (ASGI or RSGI).

Invariant: `HttpRequest.body` returns at most `limit` bytes; a body that declares a larger size is refused unread.
"""

import asyncio
from typing import NamedTuple, Protocol

from service.engine.appointments import Visitor
from service.errors import EkibenError

Headers = list[tuple[str, str]]

JSON = "application/json"
MAX_DIGITS = 18
# Replaces a header value that is not ASCII, because servers decode such values differently.
UNREADABLE = "\ufffd"


class ClientDisconnectedError(Exception):
    """The client closed its connection before the response was ready."""


class Response(NamedTuple):
    """A response without `content-length`, which the server adds."""

    content_type: str
    body: bytes
    headers: Headers = []  # noqa: RUF012 - never mutated
    status: int = 200


class HttpRequest(Protocol):
    """The head of a request, and access to its body."""

    method: str
    path: str  # percent-decoded
    received_at: float  # on the clock of `time.monotonic`
    visitor: Visitor | None  # set when the engine has been asked to admit the request

    @property
    def query(self) -> str:
        """The query string, still percent-encoded."""

    @property
    def client(self) -> str:
        """The address of the peer of the connection."""

    def header(self, name: str) -> str:
        """Return the first value of the header `name` (lower case), "" if it is absent, or UNREADABLE."""

    async def body(self, limit: int) -> bytes:
        """Read the whole body; call once. Raises EkibenError("body-too-large") or ClientDisconnectedError."""

    def disconnected(self) -> "asyncio.Future[None]":
        """Return a future that resolves when the client disconnects; call after the body has been read."""


def client_address(request: HttpRequest) -> str:
    """Return the address that a proxy reports, or else the address of the connection."""
    return request.header("x-forwarded-for") or request.client


def media_type(request: HttpRequest) -> str:
    """Return the content type in lower case, without parameters."""
    return request.header("content-type").partition(";")[0].strip().lower()


def check_content_encoding(request: HttpRequest) -> None:
    """Raise EkibenError("unsupported-media-type") for a compressed body."""
    encoding = request.header("content-encoding")
    if encoding not in {"", "identity"}:
        raise EkibenError("unsupported-media-type", f"expected a body without content encoding, got {encoding[:40]!r}")


def declared_length(request: HttpRequest, limit: int) -> int | None:
    """Return the body size in the `content-length` header, if any; raises EkibenError("body-too-large")."""
    length = parse_digits(request.header("content-length"))
    if length is not None and length > limit:
        raise body_too_large(f"{length} bytes", limit)
    return length


def parse_digits(text: str) -> int | None:
    """Parse a string of ASCII digits; return None for any other string.

    At most `MAX_DIGITS + 1` significant digits are kept, because that many already exceed every limit.
    """
    if not (text.isascii() and text.isdigit()):
        return None
    return int(text if len(text) <= MAX_DIGITS else text.lstrip("0")[: MAX_DIGITS + 1] or "0")


def body_too_large(got: str, limit: int) -> EkibenError:
    return EkibenError("body-too-large", f"expected a body of at most {limit} bytes, got {got}")
