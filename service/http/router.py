"""The router answers the service's own routes in front of the framework.

Invariant: a request is answered exactly once, with its answer or with an error in the format of its route; no exception
and no error body of the framework reaches a client. Other paths go to the framework.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from http import HTTPStatus

from service.engine.context import RequestContext
from service.errors import EkibenError
from service.http.client_watch import RequestSupervisor
from service.http.framework import FrameworkApp
from service.http.route import InferenceRoute, Route, ServiceState
from service.http.routes import health, metrics, native, oip, openai
from service.http.stream import send_stream
from service.http.wire.asgi import App, AsgiRequest, Receive, Scope, Send, send_response
from service.http.wire.framework_errors import internal_error
from service.http.wire.messages import (
    ClientDisconnectedError,
    HttpRequest,
    Response,
    StreamedResponse,
    client_address,
    declared_length,
    requested_timeout_s,
)

ROUTES = {route.name: route for route in (*native.ROUTES, *health.ROUTES, *metrics.ROUTES, *oip.ROUTES, *openai.ROUTES)}
# Answering before a longer body has arrived would close the connection, so longer bodies are read first.
MAX_UNREAD_BYTES = 1 << 16


@lru_cache(oip.PATH_CACHE_SIZE)
def find_route(path: str) -> Route | None:
    return ROUTES.get(path) or native.match_prefix(path) or oip.match_prefix(path) or openai.match_prefix(path)


class Router:
    """An ASGI application. `respond` and `refuse_early` serve other server interfaces."""

    def __init__(self, app: App, *, state: Callable[[], ServiceState], body_timeout_s: float = 30.0) -> None:
        """`app` is the framework behind the routes."""
        self.app: App = FrameworkApp(app, state)
        self.state = state
        self._supervisor = RequestSupervisor(body_timeout_s)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = find_route(scope["path"]) if scope["type"] == "http" else None
        if route is None:
            return await self.app(scope, receive, send)
        with suppress(ClientDisconnectedError):
            request = AsgiRequest(scope, receive, send)
            response = await self.respond(route, request)
            if response is not None:
                await send_response(send, response, request.reply_headers, with_body=scope["method"] != "HEAD")
        return None

    def refuse_early(self, state: ServiceState, route: InferenceRoute, request: HttpRequest) -> Response | None:
        """Return a refusal if admission control refuses the request before its body is read. Thread-safe."""
        if state.draining or not state.runner.admission.expects_retries:
            return None
        started_at = time.perf_counter()
        state.request_metrics.begin(request, route.name)
        try:
            _admit_unread(state, request)
            return None
        except EkibenError as error:
            response = route.error_format(error)
        except Exception:  # noqa: BLE001 - as in `respond`
            response = route.error_format(internal_error(request.method, request.path, request.id))
        state.request_metrics.end(request, route.name, response.status, time.perf_counter() - started_at, response)
        return response

    async def respond(self, route: Route, request: HttpRequest) -> Response | None:
        """Return the response, an error in the format of the route, or None after a stream.

        A stream that fails is counted under the status of its error. Raises ClientDisconnectedError.
        """
        started_at = time.perf_counter()
        state = self.state()
        response: Response | None = None
        status = 499  # the client disconnected
        if state.request_metrics.observers and request.observation is None:  # not yet by `refuse_early`
            state.request_metrics.begin(request, route.name)
        try:
            if request.method not in route.methods:
                raise EkibenError("method-not-allowed", f"expected {' or '.join(route.methods)}, got {request.method}")
            if isinstance(route, InferenceRoute):
                answer = await self._infer(state, route, request)
                if isinstance(answer, int):
                    status = answer
                    return None
                response = answer
            else:
                response = await route.handle(state, request)
        except ClientDisconnectedError:
            raise
        except EkibenError as error:  # kept by no variable: its traceback leads to this frame and the body
            response = route.error_format(error)
            if response.status == HTTPStatus.METHOD_NOT_ALLOWED:
                response.headers.append(("allow", ", ".join(route.methods)))
        except Exception:  # noqa: BLE001 - an unforeseen error is logged under the number that the client gets
            response = route.error_format(internal_error(request.method, request.path, request.id))
        finally:
            status = status if response is None else response.status
            state.request_metrics.end(request, route.name, status, time.perf_counter() - started_at, response)
        return response

    async def _infer(self, state: ServiceState, route: InferenceRoute, request: HttpRequest) -> Response | int:
        """Return the response, or the status of a stream that was sent."""
        scope = None
        state.request_metrics.in_flight += 1
        try:
            if state.draining:
                raise EkibenError("not-ready", "the service is shutting down", retry_after_s=1.0)
            context = request.context or _admit_unread(state, request)
            encoding = request.header("content-encoding")
            if encoding not in {"", "identity"}:
                detail = f"expected a body without content encoding, got {encoding[:40]!r}"
                raise EkibenError("unsupported-media-type", detail)
            scope = self._supervisor.open(request, context.timeout_s)
            body = await request.body(state.max_body_bytes)
            scope.has_body = True
            if request.observation is not None:
                request.observation.received(body)
            response = await route.handle(state, request, body, context)
            if not isinstance(response, StreamedResponse):
                return response
            scope.stream_until(context.deadline)
            return await send_stream(route, request, response)
        except asyncio.CancelledError as cancelled:
            raise (cancelled if scope is None else scope.reason(cancelled)) from None
        finally:
            state.request_metrics.in_flight -= 1
            if request.context is not None:
                request.context.permit.release()
            if scope is not None:
                self._supervisor.close(scope)


def _admit_unread(state: ServiceState, request: HttpRequest) -> RequestContext:
    """Make the context of a request, and have admission control see it if clients may return early."""
    request.context = context = state.runner.new_context(
        received_at=request.received_at,
        timeout_s=requested_timeout_s(request),
        client=client_address(request, state.trusted_proxies),
        route=request.path,
    )
    if state.runner.admission.expects_retries:
        length = declared_length(request, state.max_body_bytes)
        if length is not None and length < MAX_UNREAD_BYTES:
            context.permit = state.runner.admission.try_admit(context)
    return context
