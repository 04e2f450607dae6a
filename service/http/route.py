"""The two kinds of routes: a path, the methods it accepts, its handler, and the format of its error responses."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from service.engine.context import RequestContext
from service.errors import EkibenError
from service.http.service_state import ServiceState
from service.http.wire.errors import problem_response
from service.http.wire.messages import HttpRequest, Response

ErrorFormat = Callable[[EkibenError], Response]


@dataclass(frozen=True, kw_only=True)
class Route:
    """`name` is the value of the metric label `route`: a path whose variable parts are placeholders."""

    name: str
    methods: tuple[str, ...]
    error_format: ErrorFormat = field(default=problem_response)


@dataclass(frozen=True, kw_only=True)
class ReadRoute(Route):
    """Reports the state of the service, also under overload and during shutdown."""

    handle: Callable[[ServiceState, HttpRequest], Awaitable[Response]]
    methods: tuple[str, ...] = ("GET", "HEAD")


@dataclass(frozen=True, kw_only=True)
class InferenceRoute(Route):
    """Computes a response from the body, within a deadline and only while the client stays connected."""

    handle: Callable[[ServiceState, HttpRequest, bytes, RequestContext], Awaitable[Response]]
    methods: tuple[str, ...] = ("POST",)
