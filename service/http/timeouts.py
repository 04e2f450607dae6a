"""How long a client waits for its answer, as the header `X-Request-Timeout-Ms` says."""

from service.errors import EkibenError
from service.http.wire.messages import HttpRequest, parse_digits

MAX_TIMEOUT_MS = 24 * 3600 * 1000


def requested_timeout_s(request: HttpRequest) -> float | None:
    """Return the timeout that the client asks for, None if it does not; raises EkibenError invalid-request."""
    header = request.header("x-request-timeout-ms")
    if not header:
        return None
    timeout_ms = parse_digits(header)
    if timeout_ms is None or not 1 <= timeout_ms <= MAX_TIMEOUT_MS:
        detail = f"X-Request-Timeout-Ms: expected 1 to {MAX_TIMEOUT_MS}, got {header[:40]!r}"
        raise EkibenError("invalid-request", detail)
    return timeout_ms / 1e3
