"""Domain errors on the wire: the only place that knows which HTTP status a slug has.

Invariant: every answer that is not a success is one problem+json document (RFC 9457) with `code` and `errors`, the
places in the request that it speaks of; it never holds a stack trace, nor anything that the client did not send, nor
without limit what it did.
"""

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson

from service.errors import EkibenError, Slug
from service.http.wire.messages import Headers

PROBLEM_JSON = "application/problem+json"
MAX_CHARS = 1000  # of a sentence or a pointer: it may repeat what was sent
RETRY_AFTER_S = 1.0  # where nobody knows better
STATUS: Mapping[Slug, HTTPStatus] = {
    "malformed-json": HTTPStatus.BAD_REQUEST,
    "unsupported-media-type": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "body-too-large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "invalid-request": HTTPStatus.UNPROCESSABLE_ENTITY,
    "unknown-model": HTTPStatus.NOT_FOUND,
    "unknown-route": HTTPStatus.NOT_FOUND,
    "method-not-allowed": HTTPStatus.METHOD_NOT_ALLOWED,
    "wrong-task": HTTPStatus.UNPROCESSABLE_ENTITY,
    "not-ready": HTTPStatus.SERVICE_UNAVAILABLE,
    "overloaded": HTTPStatus.SERVICE_UNAVAILABLE,
    "timeout": HTTPStatus.GATEWAY_TIMEOUT,
    "internal": HTTPStatus.INTERNAL_SERVER_ERROR,
}


def status_of(error: EkibenError) -> int:
    return int(STATUS[error.slug])


def problem(error: EkibenError) -> bytes:
    """The body of an answer that says what went wrong."""
    return orjson.dumps(_members(error))


def oip_error(error: EkibenError) -> bytes:
    """The same as the Open Inference Protocol says it: a sentence under `error`, the members of a problem beside it."""
    return orjson.dumps({"error": printable(error.detail), **_members(error)})


def retry_headers(error: EkibenError) -> Headers:
    """When to ask again, where a repetition makes sense."""
    if STATUS[error.slug] != HTTPStatus.SERVICE_UNAVAILABLE:
        return []
    seconds = RETRY_AFTER_S if error.retry_after_s is None else error.retry_after_s
    return [("retry-after", str(max(math.ceil(seconds), 1))), ("retry-after-ms", str(math.ceil(seconds * 1e3)))]


def _members(error: EkibenError) -> dict[str, Any]:
    return {
        "type": f"urn:ekiben:problem:{error.slug}",
        "title": error.slug.replace("-", " ").capitalize(),
        "status": status_of(error),
        "detail": printable(error.detail),
        "code": error.slug,
        "errors": [{"pointer": printable(fault.pointer), "detail": printable(fault.detail)} for fault in error.faults],
    }


def printable(text: str) -> str:
    """At most `MAX_CHARS` of it; half a surrogate pair, which JSON can smuggle in, has no UTF-8 form and is escaped."""
    text = text if len(text) <= MAX_CHARS else text[: MAX_CHARS - 1] + "…"
    return text.encode("utf-8", "backslashreplace").decode()
