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
from service.http.route import Dialect, Host, Page, Route, Work
from service.http.routes import health, metrics, native, oip
from service.http.watch import Watch
from service.http.wire.asgi import App, AsgiRequest, Receive, Scope, Send, respond
from service.http.wire.framework_errors import Translated, failure
from service.http.wire.messages import ClientGoneError, Reply, Request, address, announced, check_encoding

ROUTES = {route.name: route for route in (*native.ROUTES, *health.ROUTES, *metrics.ROUTES, *oip.ROUTES)}
LONG_BYTES = 1 << 16  # of a body that may still be on its way: who is answered before it is here loses its connection
CLIENT_GONE = 499  # in the metrics; nobody gets it


@lru_cache(oip.MOST_PATHS)
def find_route(path: str) -> Route | None:
    return ROUTES.get(path) or native.below(path) or oip.below(path)


class Front:
    """An ASGI app; `answer` is for other interfaces. `host` gives the running service, `app` is what stands behind."""

    def __init__(self, app: App, *, host: Callable[[], Host], body_timeout_s: float = 30.0) -> None:
        self.app: App = Translated(app)
        self._host = host
        self._watch = Watch(body_timeout_s)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = find_route(scope["path"]) if scope["type"] == "http" else None
        if route is None:
            return await self.app(scope, receive, send)
        request = AsgiRequest(scope, receive)
        refusal = self.knock(request) if request.path in self.judged else None
        with suppress(ClientGoneError):
            reply = refusal or await self.answer(route, request)
            await respond(send, reply, with_body=scope["method"] != "HEAD")
        return None

    @property
    def judged(self) -> Container[str]:
        """The paths for which there is a reason to `knock` before a request is answered; false if there is none."""
        return self._host().runner.judged

    @property
    def max_body_bytes(self) -> int:
        return self._host().max_body_bytes

    def knock(self, request: Request, lag_s: float = 0.0, line_s: float = 0.0) -> Reply | None:
        """A refusal before anything is read; who is not refused is the request's visitor then. On any thread.

        `lag_s` is how long it would wait until it is read, `line_s` how much of that in a line that gets no shorter.
        """
        began = time.perf_counter()
        host, route = self._host(), find_route(request.path)
        if not isinstance(route, Work) or request.method not in route.methods or host.draining:
            return None
        try:
            if (announced(request, host.max_body_bytes) or LONG_BYTES) >= LONG_BYTES:
                return None
            found = host.runner.knock(request.path, address(request), _timeout_s(request), lag_s, line_s)
            if not isinstance(found, float):
                request.visitor = found
                return None
            reply = _too_late(route.dialect, found)
        except EkibenError as error:
            reply = route.dialect(error)
        except Exception:  # noqa: BLE001 - as in `answer`
            reply = route.dialect(failure(request.method, request.path))
        host.traffic.count(route.name, reply.status, time.perf_counter() - began)
        return reply

    async def answer(self, route: Route, request: Request) -> Reply:
        """The answer, or an error in the route's words; raises ClientGoneError if there is nobody to tell."""
        began = time.perf_counter()
        host = self._host()
        reply: Reply | None = None
        try:
            if request.method not in route.methods:
                raise EkibenError("method-not-allowed", f"expected {' or '.join(route.methods)}, got {request.method}")
            if isinstance(route, Work):
                reply = await self._work(host, route, request)
            else:
                assert isinstance(route, Page), "there are no others"
                reply = await route.answer(host, request)
        except ClientGoneError:
            raise
        except EkibenError as error:  # which no variable outlives: its trace leads back here, and holds the body
            reply = route.dialect(error)
            if reply.status == HTTPStatus.METHOD_NOT_ALLOWED:
                reply.headers.append(("allow", ", ".join(route.methods)))
        except Exception:  # noqa: BLE001 - what nobody foresaw is logged and answered with its number
            reply = route.dialect(failure(request.method, request.path))
        finally:
            status = CLIENT_GONE if reply is None else reply.status
            host.traffic.count(route.name, status, time.perf_counter() - began)
        return reply

    async def _work(self, host: Host, route: Work, request: Request) -> Reply:
        runner, work = host.runner, None
        runner.begin()
        host.traffic.in_flight += 1
        try:
            if host.draining:
                raise EkibenError("not-ready", "the service is shutting down", retry_after_s=1.0)
            timeout_s = _timeout_s(request)
            if timeout_s is not None:
                at_most(timeout_s, request.came)
            check_encoding(request)
            work = self._watch.begin(request, runner.limits.timeout_s)
            body = await request.body(host.max_body_bytes)
            work.has_body = True
            if request.visitor is not None or runner.is_busy:
                request.visitor = runner.read(request.visitor, request.path, address(request), body)
            return await route.answer(host, request, body)
        except asyncio.CancelledError as cancelled:
            raise (cancelled if work is None else work.why(cancelled)) from None
        finally:
            host.traffic.in_flight -= 1
            if request.visitor is not None:
                runner.forget(request.visitor)
            if work is not None:
                self._watch.end(work)


@lru_cache
def _too_late(dialect: Dialect, retry_after_s: float) -> Reply:
    return dialect(EkibenError("overloaded", "it would be answered too late", retry_after_s=retry_after_s))


def _timeout_s(request: Request) -> float | None:
    timeout_ms = request.header("x-request-timeout-ms")
    return read_timeout_ms(timeout_ms) if timeout_ms else None
