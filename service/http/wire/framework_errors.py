"""The framework's own failures, in the service's words.

Invariant: whatever the app behind raises or answers with a status of 400 and above leaves as a problem document; what
succeeds, and what has begun to stream, passes untouched.
"""

import logging
import secrets
from http import HTTPStatus

from service.errors import EkibenError, Slug
from service.http.route import in_problem_json
from service.http.wire.asgi import App, Message, Receive, Scope, Send, respond
from service.http.wire.errors import PROBLEM_JSON, STATUS

logger = logging.getLogger(__name__)

SLUGS: dict[int, Slug] = {
    **{int(status): slug for slug, status in STATUS.items()},
    404: "unknown-route",
    422: "invalid-request",
    429: "overloaded",
    503: "not-ready",
}


class Translated:
    """`app` with its failures translated: an ASGI middleware."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        failed: Message | None = None
        started = False

        async def watch(message: Message) -> None:
            nonlocal failed, started
            if message["type"] == "http.response.start" and _is_foreign(message):
                failed = message
            elif failed is None:
                started = True
                await send(message)

        try:
            await self._app(scope, receive, watch)
        except Exception:
            if started:
                raise
            return await respond(send, in_problem_json(failure(scope["method"], scope["path"])))
        if failed is not None:
            given = {key.lower(): value for key, value in failed.get("headers", [])}
            reply = in_problem_json(_in_our_words(scope, failed["status"], given.get(b"retry-after", b"")))
            methods = sorted(given[b"allow"].decode().split(", ")) if b"allow" in given else []  # a set, in any order
            allow = [("allow", ", ".join(methods))] if methods else []
            await respond(send, reply._replace(headers=[*reply.headers, *allow]))
        elif not started:
            await respond(send, in_problem_json(failure(scope["method"], scope["path"])))
        return None


def _is_foreign(start: Message) -> bool:
    """Is this the start of a failure that is not in our words yet?"""
    ours = (b"content-type", PROBLEM_JSON.encode())
    return start["status"] >= HTTPStatus.BAD_REQUEST and ours not in start.get("headers", [])


def failure(method: str, path: str) -> EkibenError:
    """The answer to an exception that is being handled: its trace goes to the log, its number to the client."""
    number = secrets.token_hex(8)
    logger.exception("%s %r failed (%s)", method, path, number)
    return EkibenError("internal", f"the service failed to answer; its log has the cause under {number}")


def _in_our_words(scope: Scope, status: int, retry_after: bytes) -> EkibenError:
    slug = SLUGS.get(status, "invalid-request" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "internal")
    match slug:
        case "unknown-route":
            detail = f"there is no {scope['path']}; the endpoints are described at /docs.json"
        case "method-not-allowed":
            detail = f"{scope['path']} does not take {scope['method']}"
        case _:
            detail = HTTPStatus(status).description or HTTPStatus(status).phrase
    return EkibenError(slug, detail, retry_after_s=float(retry_after) if retry_after.isdigit() else None)
