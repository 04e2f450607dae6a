"""A request and its answer as the routes see them, whoever hosts.

Invariant: no more than `limit` bytes of a body are ever held; a body that announces more is refused before it is read.
"""

import asyncio
from typing import NamedTuple, Protocol

from service.engine.appointments import Visitor
from service.errors import EkibenError

Headers = list[tuple[str, str]]

JSON = "application/json"
MAX_DIGITS = 18
UNREADABLE = "\ufffd"  # in place of a header's value that is not ASCII, of which hosts make different texts


class ClientGoneError(Exception):
    """The client closed its connection before its answer was there; there is nobody to answer."""


class Reply(NamedTuple):
    """What is answered; the length is added. `headers` is the list's own."""

    content_type: str
    body: bytes
    headers: Headers = []  # noqa: RUF012 - nobody writes to it
    status: int = 200


class Request(Protocol):
    """What the server was asked, before its body is read."""

    method: str
    path: str  # percent-decoded
    came: float  # when it was taken from the network, as `time.monotonic` says
    visitor: Visitor | None  # who asks, once the engine was asked about them

    @property
    def query(self) -> str:
        """What follows the question mark, as it came."""

    @property
    def client(self) -> str:
        """The address that its connection comes from."""

    def header(self, name: str) -> str:
        """The first value of a header (`name` in lower case), the empty string if it is not there, or UNREADABLE."""

    async def body(self, limit: int) -> bytes:
        """The whole body, to be read once. Raises EkibenError("body-too-large") or ClientGoneError."""

    def gone(self) -> "asyncio.Future[None]":
        """Done when the client has left, and if it stays, perhaps never; to be asked once the body is read."""


def address(request: Request) -> str:
    """Who asks: as a proxy says, or its connection."""
    return request.header("x-forwarded-for") or request.client


def media_type(request: Request) -> str:
    """The content type without parameters, in lower case."""
    return request.header("content-type").partition(";")[0].strip().lower()


def check_encoding(request: Request) -> None:
    """Raises EkibenError("unsupported-media-type") for a body that would have to be decoded first."""
    encoding = request.header("content-encoding")
    if encoding not in {"", "identity"}:
        raise EkibenError("unsupported-media-type", f"expected a body without content encoding, got {encoding[:40]!r}")


def announced(request: Request, limit: int) -> int | None:
    """The length of a body, if it is known before; raises EkibenError("body-too-large")."""
    text = request.header("content-length")
    length = whole_number(text)
    if length is not None and length > limit:
        raise too_large(f"{length} bytes", limit)
    return length


def whole_number(text: str) -> int | None:
    """What decimal digits say, or None if `text` is anything else; of a number with more digits the first few, which
    are more than any limit.
    """
    if not (text.isascii() and text.isdigit()):
        return None
    return int(text if len(text) <= MAX_DIGITS else text.lstrip("0")[: MAX_DIGITS + 1] or "0")


def too_large(got: str, limit: int) -> EkibenError:
    return EkibenError("body-too-large", f"expected a body of at most {limit} bytes, got {got}")
