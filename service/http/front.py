"""The service's own routes, answered in front of the framework: bytes in, a handler, bytes out.

Invariant: a request is answered exactly once, with its answer or with an error in its route's dialect; no exception and
no body of the framework's own making reaches a client. Paths that are not ours go through to the framework.
"""

import asyncio
import time
from collections.abc import Callable, Container
from contextlib import suppress
from functools import lru_cache
from http import HTTPStatus

from service.errors import EkibenError
from service.http.deadline import at_most, read_timeout_ms
from service.http.route import ErrorFormat, InferenceRoute, ReadRoute, Route
from service.http.routes import health, metrics, native, oip
from service.http.service_state import ServiceState
from service.http.watch import Watch
from service.http.wire.asgi import App, AsgiRequest, Receive, Scope, Send, send_response
from service.http.wire.framework_errors import ErrorTranslationMiddleware, internal_error
from service.http.wire.messages import (
    ClientDisconnectedError,
    HttpRequest,
    Response,
    check_content_encoding,
    client_address,
    declared_length,
)

ROUTES = {route.name: route for route in (*native.ROUTES, *health.ROUTES, *metrics.ROUTES, *oip.ROUTES)}
LONG_BYTES = 1 << 16  # of a body that may still be on its way: who is answered before it is here loses its connection
CLIENT_GONE = 499  # in the metrics; nobody gets it


@lru_cache(oip.PATH_CACHE_SIZE)
def find_route(path: str) -> Route | None:
    return ROUTES.get(path) or native.match_prefix(path) or oip.match_prefix(path)


class Front:
    """An ASGI app; `answer` is for other interfaces. `host` gives the running service, `app` is what stands behind."""

    def __init__(self, app: App, *, host: Callable[[], ServiceState], body_timeout_s: float = 30.0) -> None:
        self.app: App = ErrorTranslationMiddleware(app)
        self._host = host
        self._watch = Watch(body_timeout_s)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = find_route(scope["path"]) if scope["type"] == "http" else None
        if route is None:
            return await self.app(scope, receive, send)
        request = AsgiRequest(scope, receive)
        refusal = self.knock(request) if request.path in self.judged else None
        with suppress(ClientDisconnectedError):
            reply = refusal or await self.answer(route, request)
            await send_response(send, reply, with_body=scope["method"] != "HEAD")
        return None

    @property
    def judged(self) -> Container[str]:
        """The paths for which there is a reason to `knock` before a request is answered; false if there is none."""
        return self._host().runner.judged

    @property
    def max_body_bytes(self) -> int:
        return self._host().max_body_bytes

    def knock(self, request: HttpRequest, lag_s: float = 0.0, line_s: float = 0.0) -> Response | None:
        """A refusal before anything is read; who is not refused is the request's visitor then. On any thread.

        `lag_s` is how long it would wait until it is read, `line_s` how much of that in a line that gets no shorter.
        """
        began = time.perf_counter()
        host, route = self._host(), find_route(request.path)
        if not isinstance(route, InferenceRoute) or request.method not in route.methods or host.draining:
            return None
        try:
            if (declared_length(request, host.max_body_bytes) or LONG_BYTES) >= LONG_BYTES:
                return None
            found = host.runner.knock(request.path, client_address(request), _timeout_s(request), lag_s, line_s)
            if not isinstance(found, float):
                request.visitor = found
                return None
            reply = _too_late(route.error_format, found)
        except EkibenError as error:
            reply = route.error_format(error)
        except Exception:  # noqa: BLE001 - as in `answer`
            reply = route.error_format(internal_error(request.method, request.path))
        host.request_metrics.record(route.name, reply.status, time.perf_counter() - began)
        return reply

    async def answer(self, route: Route, request: HttpRequest) -> Response:
        """The answer, or an error in the route's words; raises ClientDisconnectedError if there is nobody to tell."""
        began = time.perf_counter()
        host = self._host()
        reply: Response | None = None
        try:
            if request.method not in route.methods:
                raise EkibenError("method-not-allowed", f"expected {' or '.join(route.methods)}, got {request.method}")
            if isinstance(route, InferenceRoute):
                reply = await self._work(host, route, request)
            else:
                assert isinstance(route, ReadRoute), "there are no others"
                reply = await route.handle(host, request)
        except ClientDisconnectedError:
            raise
        except EkibenError as error:  # which no variable outlives: its trace leads back here, and holds the body
            reply = route.error_format(error)
            if reply.status == HTTPStatus.METHOD_NOT_ALLOWED:
                reply.headers.append(("allow", ", ".join(route.methods)))
        except Exception:  # noqa: BLE001 - what nobody foresaw is logged and answered with its number
            reply = route.error_format(internal_error(request.method, request.path))
        finally:
            status = CLIENT_GONE if reply is None else reply.status
            host.request_metrics.record(route.name, status, time.perf_counter() - began)
        return reply

    async def _work(self, host: ServiceState, route: InferenceRoute, request: HttpRequest) -> Response:
        runner, work = host.runner, None
        runner.begin()
        host.request_metrics.in_flight += 1
        try:
            if host.draining:
                raise EkibenError("not-ready", "the service is shutting down", retry_after_s=1.0)
            timeout_s = _timeout_s(request)
            if timeout_s is not None:
                at_most(timeout_s, request.received_at)
            check_content_encoding(request)
            work = self._watch.begin(request, runner.limits.timeout_s)
            body = await request.body(host.max_body_bytes)
            work.has_body = True
            if request.visitor is not None or runner.is_busy:
                request.visitor = runner.read(request.visitor, request.path, client_address(request), body)
            return await route.handle(host, request, body)
        except asyncio.CancelledError as cancelled:
            raise (cancelled if work is None else work.why(cancelled)) from None
        finally:
            host.request_metrics.in_flight -= 1
            if request.visitor is not None:
                runner.forget(request.visitor)
            if work is not None:
                self._watch.end(work)


@lru_cache
def _too_late(dialect: ErrorFormat, retry_after_s: float) -> Response:
    return dialect(EkibenError("overloaded", "it would be answered too late", retry_after_s=retry_after_s))


def _timeout_s(request: HttpRequest) -> float | None:
    timeout_ms = request.header("x-request-timeout-ms")
    return read_timeout_ms(timeout_ms) if timeout_ms else None
