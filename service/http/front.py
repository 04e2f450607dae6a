"""The service's own routes, answered in front of the framework: bytes in, a handler, bytes out.

Invariant: a request is answered exactly once, with its answer or with an error in its route's dialect; no exception and
no body of the framework's own making reaches a client. Paths that are not ours go through to the framework.
"""

import time
from collections.abc import Callable
from http import HTTPStatus

from service.errors import EkibenError
from service.http import health, metrics, native, oip
from service.http.asgi import App, ClientGoneError, Receive, Reply, Request, Scope, Send, respond
from service.http.deadline import at_most, read_timeout_ms
from service.http.foreign import Translated, failure
from service.http.route import Host, Page, Route, Work
from service.http.watch import while_connected

ROUTES = {route.name: route for route in (*native.ROUTES, *health.ROUTES, *metrics.ROUTES, *oip.ROUTES)}
CLIENT_GONE = 499  # in the metrics; nobody gets it


def find_route(path: str) -> Route | None:
    return ROUTES.get(path) or native.below(path) or oip.below(path)


class Front:
    """ASGI app; `host` gives the running service. A body must be here within `body_timeout_s`."""

    def __init__(self, app: App, *, host: Callable[[], Host], body_timeout_s: float = 30.0) -> None:
        self._app = Translated(app)
        self._host = host
        self._body_timeout_s = body_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = find_route(scope["path"]) if scope["type"] == "http" else None
        if route is None:
            return await self._app(scope, receive, send)
        began = time.perf_counter()
        status = CLIENT_GONE
        try:
            reply = await self._reply(route, Request(scope, receive))
            status = reply.status
            await respond(send, reply, with_body=scope["method"] != "HEAD")
        except ClientGoneError:
            pass
        finally:
            self._host().traffic.count(route.name, status, time.perf_counter() - began)

    async def _reply(self, route: Route, request: Request) -> Reply:
        """The answer, or an error in the route's words."""
        try:
            return await self._answer(route, request)
        except ClientGoneError:
            raise
        except Exception as caught:  # noqa: BLE001 - what nobody foresaw is logged and answered with its number
            error = caught if isinstance(caught, EkibenError) else failure(request.scope)
        reply = route.dialect(error)
        if reply.status == HTTPStatus.METHOD_NOT_ALLOWED:
            reply.headers.append((b"allow", ", ".join(route.methods).encode()))
        return reply

    async def _answer(self, route: Route, request: Request) -> Reply:
        if request.method not in route.methods:
            raise EkibenError("method-not-allowed", f"expected {' or '.join(route.methods)}, got {request.method}")
        host = self._host()
        if isinstance(route, Page):
            return await route.answer(host, request)
        assert isinstance(route, Work), "there are no others"
        if host.draining:
            raise EkibenError("not-ready", "the service is shutting down", retry_after_s=1.0)
        timeout_ms = request.headers.get(b"x-request-timeout-ms")
        if timeout_ms is not None:
            at_most(read_timeout_ms(timeout_ms))
        host.traffic.in_flight += 1
        try:
            body = await request.body(host.max_body_bytes, self._body_timeout_s)
            return await while_connected(route.answer(host, request, body), request.receive)
        finally:
            host.traffic.in_flight -= 1
