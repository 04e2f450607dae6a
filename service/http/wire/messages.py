"""HTTP requests and responses as the routes see them, independent of the server interface (ASGI or RSGI).

Invariant: `HttpRequest.body` returns at most `limit` bytes; a body that declares a larger size is refused unread.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any, NamedTuple, Protocol

from service.engine.context import Permit, RequestContext
from service.errors import EkibenError
from service.http.identity.trace_context import TraceContext

Network = IPv4Network | IPv6Network

JSON = "application/json"
MAX_TIMEOUT_MS = 24 * 3600 * 1000
# Replaces a header value that is not ASCII, because servers decode such values differently.
UNREADABLE = "\ufffd"


class ClientDisconnectedError(Exception):
    """The client closed its connection before the response was ready."""


class Response(NamedTuple):
    """A response without `content-length`, which the server adds."""

    content_type: str
    body: bytes
    headers: list[tuple[str, str]] = []  # noqa: RUF012 - never mutated
    status: int = 200


class StreamedResponse(NamedTuple):
    """A response whose body is sent in parts, as they come; only the first may raise an error that is a response.

    `error_part` makes the last part of a stream that fails after its first. `parts` is closed at its end, and at once
    when the client disconnects.
    """

    content_type: str
    parts: AsyncGenerator[bytes, None]
    error_part: Callable[[EkibenError], bytes]
    headers: list[tuple[str, str]] = []  # noqa: RUF012 - never mutated


Reserve = Callable[["HttpRequest", int], None]
SendPart = Callable[[bytes], Awaitable[object]]


HOST = re.compile(r"[^\s,/?#@\\]*")


class HttpRequest(Protocol):
    """The head of a request, access to its body, and the stream that may answer it."""

    method: str
    path: str  # percent-decoded, without a slash at its end
    received_at: float  # on the clock of `time.monotonic`
    context: RequestContext | None  # set when the request is seen by admission control
    key_name: str  # of the key with which the request was sent, or ""
    key_permit: Permit | None  # its place among the requests of its key that may be in progress
    is_admitted: bool  # it has passed the checks of access
    reply_headers: list[tuple[str, str]]  # of its response, whichever it is, beside those of the response itself
    id: str  # a response names it
    trace: TraceContext | None  # None if the client sent no `traceparent`
    observation: Any  # of telemetry; None if nothing observes requests

    reserved_bytes: int  # of its body, in the budget of all bodies

    @property
    def query(self) -> str:
        """The query string, still percent-encoded."""

    @property
    def client(self) -> str:
        """The address of the peer of the connection."""

    @property
    def http_version(self) -> str:
        """The version without the name of the protocol: "1.1", or "1" or "1.0"."""

    def values(self, name: str) -> list[str]:
        """Return the values of all headers `name` (lower case) that are ASCII."""

    def header(self, name: str) -> str:
        """Return the first value of the header `name` (lower case), "" if it is absent, or UNREADABLE."""

    async def body(self, limit: int, reserve: "Reserve") -> bytes:
        """Read the whole body; call once. Raises EkibenError("body-too-large") or ClientDisconnectedError.

        `reserve` is called with the number of bytes before they are kept, and may raise an error.
        """

    def disconnected(self) -> "asyncio.Future[None]":
        """Return a future that resolves when the client disconnects; call after the body has been read."""

    async def start_stream(self, response: StreamedResponse) -> SendPart:
        """Send the head of the response; the function that is returned sends a part when the client can take it.

        Either may raise ClientDisconnectedError.
        """

    async def end_stream(self) -> None:
        """End the body of a stream whose last part was sent."""


def client_address(request: HttpRequest, trusted_proxies: Sequence[Network]) -> str:
    """Return the address of the connection or, if that is a trusted proxy, the last other one in `X-Forwarded-For`."""
    if not trusted_proxies or not is_in(request.client.rpartition(":")[0], trusted_proxies):
        return request.client
    addresses = [text.strip() for text in request.header("x-forwarded-for").split(",")]
    return next((text for text in reversed(addresses) if text and not is_in(text, trusted_proxies)), request.client)


def is_in(address: str, networks: Sequence[Network]) -> bool:
    """Return whether one of the networks holds the address."""
    try:
        parsed = ip_address(address.strip("[]"))
    except ValueError:
        return False
    return any(parsed in network for network in networks)


def media_type(request: HttpRequest) -> str:
    """Return the content type in lower case, without parameters."""
    return request.header("content-type").partition(";")[0].strip().lower()


def check_json_type(request: HttpRequest, *others: str) -> None:
    """Raise EkibenError("unsupported-media-type") unless the body is JSON; `others` are the route's other types."""
    if (content_type := media_type(request)) != JSON:
        accepted = f"{JSON}, {' or '.join(others)}" if others else JSON
        detail = f"expected content type {accepted}, got {content_type or 'none'}"
        raise EkibenError("unsupported-media-type", detail)


def requested_timeout_s(request: HttpRequest) -> float | None:
    """Return the timeout in `X-Request-Timeout-Ms`, if any; raises EkibenError("invalid-request")."""
    header = request.header("x-request-timeout-ms")
    if not header:
        return None
    timeout_ms = parse_digits(header)
    if timeout_ms is None or not 1 <= timeout_ms <= MAX_TIMEOUT_MS:
        detail = f"X-Request-Timeout-Ms: expected 1 to {MAX_TIMEOUT_MS}, got {header[:40]!r}"
        raise EkibenError("invalid-request", detail)
    return timeout_ms / 1e3


def declared_length(request: HttpRequest, limit: int) -> int | None:
    """Return the body size in the `content-length` header, if any; raises EkibenError("body-too-large")."""
    length = parse_digits(request.header("content-length"))
    if length is not None and length > limit:
        raise body_too_large(f"{length} bytes", limit)
    return length


def parse_digits(text: str) -> int | None:
    """Parse ASCII digits, of which 19 significant ones exceed every limit; return None for any other string."""
    if not (text.isascii() and text.isdigit()):
        return None
    return int(text if len(text) < 19 else text.lstrip("0")[:19] or "0")


def check_head(request: HttpRequest) -> None:
    """Raise EkibenError("malformed-message") if servers might understand the head in two ways (RFC 9112, 3.2 and 6.1).

    The hosts themselves see to the rest, such as two lengths.
    """
    hosts = request.values("host")
    if len(hosts) != 1:
        if hosts or request.http_version == "1.1":
            raise _malformed(f"expected one Host header, got {len(hosts)}")
    elif not HOST.fullmatch(hosts[0]):
        raise _malformed(f"Host: expected a name and perhaps a port, got {hosts[0][:40]!r}")
    if request.path[:1] not in {"/", "*"}:
        raise _malformed(f"expected a path as target, got {request.path[:40]!r}")
    if request.header("transfer-encoding"):
        codings = request.values("transfer-encoding")
        if [coding.lower() for coding in codings] != ["chunked"]:
            raise _malformed(f"Transfer-Encoding: expected chunked, got {', '.join(codings)[:40]!r}")


def without_slash(path: str) -> str:
    """Return the path without a slash at its end, which changes no route."""
    return path[:-1] if path.endswith("/") and len(path) > 1 else path


def _malformed(detail: str) -> EkibenError:
    return EkibenError("malformed-message", detail)


def incomplete_body() -> EkibenError:
    return EkibenError("malformed-message", "the body ended before its declared length or its last chunk")


def body_too_large(got: str, limit: int) -> EkibenError:
    return EkibenError("body-too-large", f"expected a body of at most {limit} bytes, got {got}")
