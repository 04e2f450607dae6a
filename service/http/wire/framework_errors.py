"""ASGI middleware that turns failures of the wrapped framework into problem documents.

Invariant: an exception, or a response with a status of 400 or above, leaves as a problem document. A successful
response passes unchanged, and an exception after its start propagates to the server.
"""

import logging
import sys
from http import HTTPStatus

from service.engine.process.shortage import is_out_of_memory
from service.errors import EkibenError, Slug
from service.http.identity.request_id import identify
from service.http.wire.asgi import App, Message, Receive, Scope, Send, send_response
from service.http.wire.errors import PROBLEM_JSON, STATUS, problem_response

log = logging.getLogger(__name__)

REQUEST_ID = "ekiben.request_id"  # the key of a scope that holds the id of its request

SLUGS: dict[int, Slug] = {
    **{int(status): slug for slug, status in STATUS.items()},
    404: "unknown-route",
    422: "invalid-request",
    503: "not-ready",
}


class ErrorTranslationMiddleware:
    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        error_start: Message | None = None
        started = False

        async def intercept(message: Message) -> None:
            nonlocal error_start, started
            is_error = message["type"] == "http.response.start" and message["status"] >= HTTPStatus.BAD_REQUEST
            if is_error and (b"content-type", PROBLEM_JSON.encode()) not in message.get("headers", []):
                error_start = message
            elif error_start is None:
                started = True
                await send(message)

        try:
            await self._app(scope, receive, intercept)
        except Exception:
            if started:
                raise
            return await send_response(send, problem_response(_internal_error(scope)))
        if error_start is not None:
            headers = {key.lower(): value for key, value in error_start.get("headers", [])}
            response = problem_response(_translate(scope, error_start["status"], headers.get(b"retry-after", b"")))
            if b"allow" in headers:  # sorted, because the framework lists the methods in arbitrary order
                response.headers.append(("allow", ", ".join(sorted(headers[b"allow"].decode().split(", ")))))
            await send_response(send, response)
        elif not started:
            await send_response(send, problem_response(_internal_error(scope)))
        return None


def internal_error(method: str, path: str, request_id: str) -> EkibenError:
    """Log the exception that is being handled and return an error that carries only the id of the request.

    A lack of memory passes, and is no fault of the request: it is "overloaded".
    """
    if is_out_of_memory(sys.exception()):
        log.exception("%s %r: out of memory (%s)", method, path, request_id)
        return EkibenError("overloaded", "the service lacks the memory for this request now", retry_after_s=1.0)
    log.exception("%s %r failed (%s)", method, path, request_id)
    return EkibenError("internal", f"internal error; search the service log for {request_id}")


def _internal_error(scope: Scope) -> EkibenError:
    request_id = scope.get(REQUEST_ID) or identify("", "")[0]
    return internal_error(scope["method"], scope["path"], request_id)


def _translate(scope: Scope, status: int, retry_after: bytes) -> EkibenError:
    slug = SLUGS.get(status, "invalid-request" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "internal")
    detail = HTTPStatus(status).description or HTTPStatus(status).phrase
    if slug == "unknown-route":
        detail = f"there is no {scope['path']}; the routes are described at /openapi.json"
    elif slug == "method-not-allowed":
        detail = f"{scope['path']} does not accept {scope['method']}"
    return EkibenError(slug, detail, retry_after_s=float(retry_after) if retry_after.isdigit() else None)
