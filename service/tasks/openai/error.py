"""Errors as OpenAI's API writes them."""

from http import HTTPStatus

from service.errors import EkibenError
from service.tasks.body import JsonObject

MAX_CHARS = 1000  # of a message, which may repeat a value of the request


def error_object(error: EkibenError, status: int) -> JsonObject:
    """Return the `error` of a response with this status; `param` is the field of the request that it concerns."""
    param = error.faults[0].pointer.split("/")[1:2] if error.faults else []
    return {
        "message": error.detail[:MAX_CHARS],
        "type": "invalid_request_error" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "server_error",
        "param": param[0][:MAX_CHARS] if param else None,
        "code": "model_not_found" if error.slug == "unknown-model" else error.slug,
    }
