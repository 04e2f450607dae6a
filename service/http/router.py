"""The router answers the service's own routes in front of the framework.

Invariant: a request is answered exactly once, with its answer or with an error in the format of its route; no exception
and no error body of the framework reaches a client. One path, FRAMEWORK, goes to the framework.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from http import HTTPStatus

from service.engine.context import RequestContext
from service.errors import EkibenError, forget_traceback
from service.http.access.policy import OPEN, AccessPolicy
from service.http.client_watch import RequestSupervisor
from service.http.framework import FRAMEWORK_PATH, REQUEST, FrameworkApp
from service.http.openapi.route import document_routes
from service.http.playground import route as playground
from service.http.rollout.comparison import read_answer
from service.http.rollout.traffic import Inference, Rollout
from service.http.route import InferenceRoute, ReadRoute, Route, ServiceState
from service.http.routes import cards, health, metrics, native, oip, oip_control, openai
from service.http.stream import send_stream
from service.http.wire.asgi import App, AsgiRequest, Receive, Scope, Send, send_response
from service.http.wire.errors import problem_response
from service.http.wire.framework_errors import internal_error
from service.http.wire.messages import (
    ClientDisconnectedError,
    HttpRequest,
    Response,
    StreamedResponse,
    check_head,
    client_address,
    declared_length,
    requested_timeout_s,
)
from service.http.wire.negotiation import MIN_PACKED_BYTES, pack_response, unpack_body


async def _unknown(_: ServiceState, request: HttpRequest) -> Response:
    raise EkibenError("unknown-route", f"there is no {request.path}; the routes are described at /openapi.json")


UNKNOWN = ReadRoute(name="/...", handle=_unknown, methods=oip.METHODS)
# The framework answers this one, for its clients; its pages and endpoints are out of reach.
FRAMEWORK = ReadRoute(name=FRAMEWORK_PATH, handle=_unknown)


def served_routes() -> tuple[Route, ...]:
    """Return every route: those of ROUTES, those whose paths have variable parts, those that refuse other paths."""
    pages = (playground.ASSET, cards.MODEL_CARD, cards.PLOT)
    variable = (native.MODEL, *pages, *oip.MODEL_ROUTES.values(), *oip_control.ACTIONS.values(), openai.MODEL)
    return (*ROUTES.values(), FRAMEWORK, *variable, oip.UNKNOWN, openai.UNKNOWN, UNKNOWN)


ROUTES = {
    route.name: route
    for route in (
        *native.ROUTES,
        *health.ROUTES,
        *metrics.ROUTES,
        *oip.ROUTES,
        *openai.ROUTES,
        *playground.ROUTES,
        *document_routes(served_routes),
    )
}
# Answering before a longer body has arrived would close the connection, so longer bodies are read first.
MAX_UNREAD_BYTES = 1 << 16


@lru_cache(oip.PATH_CACHE_SIZE)
def find_route(path: str) -> Route | None:
    """Return the route of a path; None for the path that the framework answers."""
    if path == FRAMEWORK.name:
        return None
    modules = (cards, native, oip, openai, playground)
    return ROUTES.get(path) or next((route for module in modules if (route := module.match_prefix(path))), UNKNOWN)


class Router:
    """An ASGI application. `check_access`, `refuse_early` and `respond` serve other server interfaces."""

    def __init__(
        self,
        app: App,
        *,
        state: Callable[[], ServiceState],
        access: AccessPolicy = OPEN,
        rollout: Rollout | None = None,
        body_timeout_s: float = 30.0,
    ) -> None:
        """`app` is the framework behind the routes. `rollout` answers requests while there are candidates."""
        self.app: App = FrameworkApp(app, state)
        self.state = state
        self.access = access
        self.rollout = rollout
        self._supervisor = RequestSupervisor(body_timeout_s)
        self._in_flight: set[HttpRequest] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        with suppress(ClientDisconnectedError):
            request = AsgiRequest(scope, receive, send)
            route = find_route(request.path)
            response = self.check_access(route, request)
            if route is None and response is None:
                response = self.refuse_malformed(request)
                if response is None:
                    return await self.app({**scope, "path": request.path, REQUEST: request}, receive, send)
            elif route is not None and response is None:
                response = await self.respond(route, request)
            if response is not None:
                await send_response(send, response, request.reply_headers, with_body=scope["method"] != "HEAD")
        return None

    def check_access(self, route: Route | None, request: HttpRequest) -> Response | None:
        """Return the answer to a request that may not be worked for, without reading its body. Thread-safe.

        A request that may be worked for holds a place among those of its key until `respond` ends.
        """
        started_at = time.perf_counter()
        route = route or FRAMEWORK
        try:
            answer = self.access.check(
                request, scope=route.scope, methods=route.methods, infers=isinstance(route, InferenceRoute)
            )
            if answer is None:
                return None
        except EkibenError as error:
            answer = route.error_format(error)
        except Exception:  # noqa: BLE001 - as in `respond`
            answer = route.error_format(internal_error(request.method, request.path, request.id))
        metrics = self.state().request_metrics
        metrics.begin(request, route.name)
        metrics.end(request, route.name, answer.status, time.perf_counter() - started_at, answer)
        return answer

    def clients_in_flight(self) -> list[str]:
        """Return the addresses of the clients whose requests are in flight. Thread-safe."""
        return [request.client for request in list(self._in_flight)]

    def refuse_malformed(self, request: HttpRequest) -> Response | None:
        """Return an error for a request to the framework that it must not see."""
        try:
            check_head(request)
        except EkibenError as error:
            return problem_response(error)
        return None

    def refuse_early(self, state: ServiceState, route: InferenceRoute, request: HttpRequest) -> Response | None:
        """Return a refusal if admission control refuses the request before its body is read. Thread-safe."""
        if state.closing or not state.runner.admission.expects_retries:
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
        _release_place(request)
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
        self._in_flight.add(request)
        if state.request_metrics.observers and request.observation is None:  # not yet by `refuse_early`
            state.request_metrics.begin(request, route.name)
        try:
            check_head(request)
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
        except EkibenError as error:
            response = route.error_format(error)
            forget_traceback(error)
            if response.status == HTTPStatus.METHOD_NOT_ALLOWED:
                response.headers.append(("allow", ", ".join(route.methods)))
        except Exception as error:  # noqa: BLE001 - an unforeseen error is logged under the number that the client gets
            response = route.error_format(internal_error(request.method, request.path, request.id))
            forget_traceback(error)
        finally:
            self._in_flight.discard(request)
            _release_place(request)
            if request.reserved_bytes:
                state.bodies.release(request)
            if request.context is not None:
                request.context.permit.release()
            status = status if response is None else response.status
            state.request_metrics.end(request, route.name, status, time.perf_counter() - started_at, response)
        return response if len(response.body) < MIN_PACKED_BYTES else await pack_response(request, response)

    async def _infer(self, state: ServiceState, route: InferenceRoute, request: HttpRequest) -> Response | int:
        """Return the response, or the status of a stream that was sent."""
        scope = None
        state.request_metrics.in_flight += 1
        try:
            if state.closing:
                raise EkibenError("not-ready", "the service is shutting down", retry_after_s=1.0)
            context = request.context or _admit_unread(state, request)
            scope = self._supervisor.open(request, context.timeout_s)
            body = await request.body(state.max_body_bytes, state.bodies.reserve)
            scope.has_body = True
            if request.header("content-encoding"):
                body = await unpack_body(request, body, state.max_body_bytes, state.bodies.reserve)
            if request.observation is not None:
                request.observation.received(body)
            if self.rollout is not None and state.repository.has_candidates:
                response = await self.rollout.answer(state, _inference(route, request, body), context)
            else:
                response = await route.handle(state, request, body, context)
            if not isinstance(response, StreamedResponse):
                return response
            scope.stream_until(context.deadline)
            return await send_stream(route, request, response)
        except asyncio.CancelledError as cancelled:
            raise (cancelled if scope is None else scope.reason(cancelled)) from None
        finally:
            state.request_metrics.in_flight -= 1
            if scope is not None:
                self._supervisor.close(scope)


def _inference(route: InferenceRoute, request: HttpRequest, body: bytes) -> Inference[Response | StreamedResponse]:
    return Inference(
        route=route.name,
        request_id=request.id,
        names_version=route.names_version(request.path, body),
        handle=lambda state, context: route.handle(state, request, body, context),
        content=read_answer,
    )


def _release_place(request: HttpRequest) -> None:
    if request.key_permit is not None:
        request.key_permit.release()


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
