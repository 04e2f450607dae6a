"""The two kinds of routes: a path, the methods it accepts, its handler, and the format of its error responses.

The framework creates the service after the routes, so a handler receives the part of its state that routes read.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from service.engine.context import RequestContext
from service.engine.repository.repository import Repository
from service.engine.runner import Runner
from service.errors import EkibenError
from service.http.body_budget import BodyBudget
from service.http.telemetry.multiprocess import MultiprocessMetrics
from service.http.telemetry.request_metrics import RequestMetrics
from service.http.wire.errors import problem_response
from service.http.wire.messages import HttpRequest, Network, Response, StreamedResponse
from service.keys.key_file import Scope as Scope  # noqa: PLC0414 - modules of routes name it, too


class ServiceState(Protocol):
    """The part of the running service that routes read."""

    repository: Repository
    runner: Runner
    max_body_bytes: int
    bodies: BodyBudget
    trusted_proxies: tuple[Network, ...]  # whose X-Forwarded-For is trusted
    draining: bool  # the service will end, and says so to those who ask whether it is ready
    closing: bool  # it takes no new requests any more
    has_playground: bool
    request_metrics: RequestMetrics
    multiprocess_metrics: MultiprocessMetrics | None  # None in a service of one worker


ReadHandler = Callable[[ServiceState, HttpRequest], Awaitable[Response]]
InferenceHandler = Callable[[ServiceState, HttpRequest, bytes, RequestContext], Awaitable[Response | StreamedResponse]]


@dataclass(frozen=True, kw_only=True)
class ReadRoute:
    """Reports the state of the service, also under overload and during shutdown."""

    name: str  # in the metrics: a path whose variable parts are placeholders
    handle: ReadHandler
    methods: tuple[str, ...] = ("GET", "HEAD")
    scope: Scope | None = "models"  # None: everyone may ask
    error_format: Callable[[EkibenError], Response] = problem_response


def names_no_version(_path: str, _body: bytes) -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class InferenceRoute:
    """Computes a response from the body, within a deadline and only while the client stays connected."""

    name: str
    handle: InferenceHandler
    methods: tuple[str, ...] = ("POST",)
    scope: Scope = "infer"
    names_version: Callable[[str, bytes], bool] = names_no_version  # whether a path or body names one of the model
    error_format: Callable[[EkibenError], Response] = problem_response


Route = ReadRoute | InferenceRoute
