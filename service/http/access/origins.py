"""Requests that web pages of other origins send.

Invariant: a page of an origin that is not allowed reads no answer (the browser sees to that), and causes no work: its
requests with a body are refused, whatever their content type. Other clients send neither Origin nor Sec-Fetch-Site.
"""

import re
from collections.abc import Sequence

from service.errors import EkibenError
from service.http.wire.messages import HttpRequest, Response

ANY = "*"
READING = frozenset({"GET", "HEAD", "OPTIONS"})  # methods that cause no work
MAX_AGE_S = 600  # for which a browser remembers the answer to a preflight
HEADER_NAMES = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+( ?, ?[a-z0-9!#$%&'*+.^_`|~-]+)*")
# Of our answers, what a page may read beside the headers that every page may.
EXPOSED = ", ".join([
    "inference-header-content-length", "ratelimit", "ratelimit-policy", "retry-after", "retry-after-ms",
    "traceparent", "www-authenticate", "x-request-id", "x-seed",
])  # fmt: skip


class OriginRule:
    """`origins` holds the origins whose pages may use the service, such as https://app.example, or `*`."""

    def __init__(self, origins: frozenset[str]) -> None:
        self._origins = origins
        self._is_any = ANY in origins
        self.is_set = bool(origins)

    def check(self, request: HttpRequest) -> None:
        """Raise EkibenError("forbidden") for a request from a page of an origin that is not allowed."""
        origin, site = request.header("origin"), request.header("sec-fetch-site")
        if not origin and not site:
            return
        if self._is_any or origin in self._origins or site in {"same-origin", "none"}:
            return
        address = origin.partition("://")[2]
        if not site and address and address.lower() == request.header("host").lower():
            return
        who = f"of the origin {origin[:80]!r}" if origin else "of another site"
        raise EkibenError("forbidden", f"web pages {who} may not send requests; EKIBEN_CORS_ORIGINS adds origins")

    def reply_headers(self, request: HttpRequest) -> list[tuple[str, str]]:
        """Return the headers that let a page of an allowed origin read the answer."""
        vary = [] if self._is_any else [("vary", "Origin")]
        origin = request.header("origin")
        if not origin or not (self._is_any or origin in self._origins):
            return vary
        allowed = ANY if self._is_any else origin
        return [("access-control-allow-origin", allowed), ("access-control-expose-headers", EXPOSED), *vary]

    def answer_preflight(self, request: HttpRequest, methods: Sequence[str]) -> Response | None:
        """Answer the question of a browser whether a page may send a request; None if the request is none.

        Such a question has no key. Raises EkibenError("forbidden").
        """
        if request.method != "OPTIONS" or not request.header("access-control-request-method"):
            return None
        origin = request.header("origin")
        if not origin:
            return None
        if not (self._is_any or origin in self._origins):
            raise EkibenError("forbidden", f"web pages of the origin {origin[:80]!r} may not send requests")
        headers = [
            ("access-control-allow-methods", ", ".join(methods)),
            ("access-control-max-age", str(MAX_AGE_S)),
            ("vary", "Access-Control-Request-Headers"),
        ]
        asked = request.header("access-control-request-headers").lower()
        if HEADER_NAMES.fullmatch(asked):
            headers.append(("access-control-allow-headers", asked))
        return Response("text/plain", b"", headers)
