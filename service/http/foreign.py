"""The framework's own failures, in the service's words.

Invariant: whatever the app behind raises or answers with a status of 400 and above leaves as a problem document; what
succeeds, and what has begun to stream, passes untouched.
"""

import logging
import secrets
from http import HTTPStatus

from service.errors import EkibenError, Slug
from service.http.asgi import App, Message, Receive, Scope, Send, respond
from service.http.problems import PROBLEM_JSON, STATUS, problem, status_of

logger = logging.getLogger(__name__)

KEPT_HEADERS = {b"allow", b"retry-after"}
SLUGS: dict[int, Slug] = {
    **{int(status): slug for slug, status in STATUS.items()},
    404: "unknown-route",
    422: "invalid-request",
    429: "overloaded",
    503: "not-ready",
}


def translate(app: App) -> App:
    """`app` with its failures translated."""

    async def translated(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await app(scope, receive, send)
        failed: Message | None = None
        started = False

        async def watch(message: Message) -> None:
            nonlocal failed, started
            if message["type"] == "http.response.start" and message["status"] >= HTTPStatus.BAD_REQUEST:
                failed = message
            elif failed is None:
                started = True
                await send(message)

        try:
            await app(scope, receive, watch)
        except Exception:
            if started:
                raise
            error = failure(scope)
            return await respond(send, status_of(error), PROBLEM_JSON, problem(error))
        if failed is not None:
            error = _in_our_words(scope, failed["status"])
            kept = [(key, value) for key, value in failed.get("headers", []) if key.lower() in KEPT_HEADERS]
            await respond(send, status_of(error), PROBLEM_JSON, problem(error), kept)
        return None

    return translated


def failure(scope: Scope) -> EkibenError:
    """The answer to an exception that is being handled: its trace goes to the log, its number to the client."""
    number = secrets.token_hex(8)
    logger.exception("%s %r failed (%s)", scope["method"], scope["path"], number)
    return EkibenError("internal", f"the service failed to answer; its log has the cause under {number}")


def _in_our_words(scope: Scope, status: int) -> EkibenError:
    slug = SLUGS.get(status, "invalid-request" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "internal")
    match slug:
        case "unknown-route":
            detail = f"there is no {scope['path']}; the routes are listed at /docs.json"
        case "method-not-allowed":
            detail = f"{scope['path']} does not take {scope['method']}"
        case _:
            detail = HTTPStatus(status).description or HTTPStatus(status).phrase
    return EkibenError(slug, detail)
