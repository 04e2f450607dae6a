"""Has uvicorn, the server of `bentoml serve`, treat HTTP/1.1 as granian does.

An offer to upgrade the connection is declined by ignoring it, the size of a head is limited, and a message that cannot
be parsed is answered in the format of our errors, after the requests before it. This is the only module that overrides
methods of uvicorn's protocol; tests/service/http/uvicorn/test_protocol.py drives it with a real server.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http import auto
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.errors import EkibenError
from service.http.identity.request_id import identify
from service.http.router import find_route
from service.http.wire.errors import problem_response

# The limits of hyper, which granian uses.
MAX_TARGET_BYTES = 65_534
MAX_HEADERS = 100
MAX_HEAD_BYTES = 417_792
UPGRADE_HEADERS = frozenset({b"upgrade", b"http2-settings"})


def install(keep_alive_s: float, on_port: Callable[[int], None]) -> None:
    """Have uvicorn use this protocol in this process, and close connections that are idle for `keep_alive_s`.

    `on_port` is called with the port of each connection.
    """
    auto.AutoHTTPProtocol = partial(HttpProtocol, keep_alive_s=keep_alive_s, on_port=on_port)  # type: ignore[assignment]


class HttpProtocol(HttpToolsProtocol):
    def __init__(self, *args: Any, keep_alive_s: float, on_port: Callable[[int], None], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if isinstance(self.app, ProxyHeadersMiddleware):
            # It believes X-Forwarded-For of everyone on this machine, and hides the address of the connection, which
            # limits and the watch of connections count by. EKIBEN_TRUSTED_PROXIES says whose header counts.
            self.app = self.app.app
        self.timeout_keep_alive = keep_alive_s  # type: ignore[assignment]  # any number of seconds
        self._on_port = on_port
        self._head_bytes = 0
        self._has_upgrade = False  # the head that was parsed last
        self._refusal: EkibenError | None = None  # of what cannot be parsed

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.server is not None and self.server[1] is not None:
            self._on_port(self.server[1])

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.send_400_response("")
        except httptools.HttpParserUpgrade as upgrade:
            self._decline_upgrade(data[upgrade.args[0] :])

    def _decline_upgrade(self, rest: bytes) -> None:
        """Parse the head again without the offer: the parser takes what follows one for another protocol."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            self.send_400_response("")
            return
        head = [b"%s %s HTTP/%s" % (method, self.url, self.parser.get_http_version().encode())]
        for name, value in self.headers:
            if name == b"connection":
                tokens = (token.strip() for token in value.split(b","))
                value = b", ".join(token for token in tokens if token.lower() not in UPGRADE_HEADERS)  # noqa: PLW2901
            if name not in UPGRADE_HEADERS:
                head.append(name + b": " + value)
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join(head) + b"\r\n\r\n" + rest)

    def _should_upgrade(self) -> bool:
        return False

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > MAX_TARGET_BYTES:
            self._reject(EkibenError("target-too-long", f"expected a target of at most {MAX_TARGET_BYTES} bytes"))

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._head_bytes += len(name) + len(value)
        if len(self.headers) > MAX_HEADERS or self._head_bytes > MAX_HEAD_BYTES:
            detail = f"expected at most {MAX_HEADERS} headers of {MAX_HEAD_BYTES} bytes in all"
            self._reject(EkibenError("head-too-large", detail))

    def on_headers_complete(self) -> None:
        self._has_upgrade = self.parser.should_upgrade()
        if self._has_upgrade:
            return
        if self.parser.get_http_version() not in {"1.0", "1.1"}:
            self._reject(EkibenError("malformed-message", "expected HTTP/1.1 or HTTP/1.0"))
        if self.parser.get_http_version() == "1.0" and any(name == b"transfer-encoding" for name, _ in self.headers):
            self._reject(EkibenError("malformed-message", "expected no Transfer-Encoding in HTTP/1.0"))
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self._has_upgrade:
            super().on_message_complete()

    def _reject(self, error: EkibenError) -> None:
        self._refusal = error
        raise error  # the parser ends with it, and `data_received` answers

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn says less
        """Answer what could not be parsed; first, the whole requests before it are answered."""
        self._refusal = self._refusal or EkibenError(
            "malformed-message", "the request is not HTTP/1.1 as RFC 9112 has it"
        )
        if self.cycle is None or self.cycle.response_complete or self.cycle.more_body:
            self._send_refusal(self._refusal)
        else:
            self.flow.pause_reading()

    def on_response_complete(self) -> None:
        if self._refusal is None or self.pipeline or self.transport.is_closing():
            super().on_response_complete()
        else:
            self._send_refusal(self._refusal)

    def _send_refusal(self, error: EkibenError) -> None:
        route = find_route(self.url.partition(b"?")[0].decode("latin-1")) if self.scope is not None else None
        response = problem_response(error) if route is None else route.error_format(error)
        _, _, reply_headers = identify("", "")  # those of the request may be broken
        head = [
            f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}",
            f"content-type: {response.content_type}",
            f"content-length: {len(response.body)}",
            *(f"{name}: {value}" for name, value in reply_headers),
            "connection: close",
        ]
        self.transport.write("\r\n".join([*head, "\r\n"]).encode() + response.body)
        self.transport.close()
