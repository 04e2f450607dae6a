"""Domain errors as HTTP responses; this is the only module that maps an error slug to an HTTP status.

Invariant: every error response is one document with the members of a problem (RFC 9457), a stable `code` and `errors`,
which points at the invalid places of the request. It holds no internal data, and at most `MAX_CHARS` of a client value.
"""

import math
from collections.abc import Mapping
from http import HTTPStatus

import orjson

from service.errors import EkibenError, Slug
from service.http.wire.messages import JSON, Response
from service.tasks.faults import cut
from service.tasks.openai.error import error_object

PROBLEM_JSON = "application/problem+json"
STATUS: Mapping[Slug, HTTPStatus] = {
    "malformed-message": HTTPStatus.BAD_REQUEST,
    "target-too-long": HTTPStatus.REQUEST_URI_TOO_LONG,
    "head-too-large": HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    "malformed-json": HTTPStatus.BAD_REQUEST,
    "unsupported-media-type": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "body-too-large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "invalid-request": HTTPStatus.UNPROCESSABLE_ENTITY,
    "unknown-model": HTTPStatus.NOT_FOUND,
    "unknown-route": HTTPStatus.NOT_FOUND,
    "method-not-allowed": HTTPStatus.METHOD_NOT_ALLOWED,
    "unauthorized": HTTPStatus.UNAUTHORIZED,
    "forbidden": HTTPStatus.FORBIDDEN,
    "misdirected": HTTPStatus.MISDIRECTED_REQUEST,
    "rate-limited": HTTPStatus.TOO_MANY_REQUESTS,
    "wrong-task": HTTPStatus.UNPROCESSABLE_ENTITY,
    "not-ready": HTTPStatus.SERVICE_UNAVAILABLE,
    "overloaded": HTTPStatus.SERVICE_UNAVAILABLE,
    "timeout": HTTPStatus.GATEWAY_TIMEOUT,
    "not-finite": HTTPStatus.INTERNAL_SERVER_ERROR,
    "internal": HTTPStatus.INTERNAL_SERVER_ERROR,
}
# Where OpenAI's API has another status.
OPENAI_STATUS: Mapping[Slug, HTTPStatus] = {
    "invalid-request": HTTPStatus.BAD_REQUEST,
    "wrong-task": HTTPStatus.BAD_REQUEST,
}


def problem_response(error: EkibenError) -> Response:
    """Return the error as problem+json (RFC 9457)."""
    return _response(PROBLEM_JSON, error, {})


def oip_error_response(error: EkibenError) -> Response:
    """Return the error as the Open Inference Protocol requires: the detail under `error`, then the problem members."""
    return _response(JSON, error, {"error": _printable(error.detail)})


def openai_error_response(error: EkibenError) -> Response:
    """Return the error as OpenAI's API does; `param` is the field of the request that it concerns."""
    status = OPENAI_STATUS.get(error.slug) or STATUS[error.slug]
    members = {name: value and _printable(value) for name, value in error_object(error, status).items()}
    return Response(JSON, orjson.dumps({"error": members}), _retry_headers(error, status), status)


def _response(content_type: str, error: EkibenError, first: dict[str, str]) -> Response:
    status = int(STATUS[error.slug])
    document = {
        **first,
        "type": f"urn:ekiben:problem:{error.slug}",
        "title": error.slug.replace("-", " ").capitalize(),
        "status": status,
        "detail": _printable(error.detail),
        "code": error.slug,
        "errors": [
            {"pointer": _printable(fault.pointer), "detail": _printable(fault.detail)} for fault in error.faults
        ],
    }
    return Response(content_type, orjson.dumps(document), _retry_headers(error, status), status)


def _retry_headers(error: EkibenError, status: int) -> list[tuple[str, str]]:
    if status not in {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS}:
        return []
    seconds = 1.0 if error.retry_after_s is None else error.retry_after_s
    return [("retry-after", str(max(math.ceil(seconds), 1))), ("retry-after-ms", str(math.ceil(seconds * 1e3)))]


def _printable(text: str) -> str:
    """Truncate to `MAX_CHARS` and escape lone surrogates, which JSON can contain but UTF-8 cannot encode."""
    return cut(text).encode("utf-8", "backslashreplace").decode()
