"""Domain errors on the wire: the only place that knows which HTTP status a slug has.

Invariant: every answer that is not a success is one problem+json document (RFC 9457) with `code` and `errors`, the
places in the request that it speaks of; it never holds a stack trace, nor anything that the client did not send.
"""

from collections.abc import Mapping
from http import HTTPStatus

import orjson

from service.errors import EkibenError, Slug

PROBLEM_JSON = b"application/problem+json"
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
    status = STATUS[error.slug]
    return orjson.dumps(
        {
            "type": f"urn:ekiben:problem:{error.slug}",
            "title": error.slug.replace("-", " ").capitalize(),
            "status": int(status),
            "detail": printable(error.detail),
            "code": error.slug,
            "errors": [
                {"pointer": printable(fault.pointer), "detail": printable(fault.detail)} for fault in error.faults
            ],
        }
    )


def printable(text: str) -> str:
    """Half a surrogate pair, which JSON can smuggle in, has no UTF-8 form."""
    return text.encode("utf-8", "backslashreplace").decode()
