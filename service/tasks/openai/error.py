"""Errors as OpenAI's API writes them."""

from collections.abc import Mapping
from http import HTTPStatus

from service.errors import EkibenError, Slug
from service.tasks.body import JsonObject
from service.tasks.faults import cut

# Where OpenAI's API has a code of its own.
CODES: Mapping[Slug, str] = {
    "unknown-model": "model_not_found",
    "unauthorized": "invalid_api_key",
    "rate-limited": "rate_limit_exceeded",
}


def error_object(error: EkibenError, status: int) -> JsonObject:
    """Return the `error` of a response with this status; `param` is the field of the request that it concerns."""
    param = error.faults[0].pointer.split("/")[1:2] if error.faults else []
    return {
        "message": cut(error.detail),
        "type": "invalid_request_error" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "server_error",
        "param": cut(param[0]) if param else None,
        "code": CODES.get(error.slug, error.slug),
    }
