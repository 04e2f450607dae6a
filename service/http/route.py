"""What a route is: whom it answers, how, and in which words it fails."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from service.engine.repository import Repository
from service.engine.runner import Runner
from service.errors import EkibenError
from service.http.telemetry.request_metrics import Traffic
from service.http.wire.errors import PROBLEM_JSON, oip_error, problem, retry_headers, status_of
from service.http.wire.messages import JSON, Reply, Request

if TYPE_CHECKING:
    from service.http.routes.metrics import Sharing


class Host(Protocol):
    """Who serves: looked up for each request, since the framework makes it after the routes."""

    repository: Repository
    runner: Runner
    max_body_bytes: int
    draining: bool
    traffic: Traffic
    sharing: "Sharing | None"  # with other workers, if there are any


Dialect = Callable[[EkibenError], Reply]


def in_problem_json(error: EkibenError) -> Reply:
    return Reply(PROBLEM_JSON, problem(error), retry_headers(error), status_of(error))


def in_oip(error: EkibenError) -> Reply:
    return Reply(JSON, oip_error(error), retry_headers(error), status_of(error))


@dataclass(frozen=True, kw_only=True)
class Route:
    """`name` is its path as the metrics show it, so one of few."""

    name: str
    methods: tuple[str, ...]
    dialect: Dialect = field(default=in_problem_json)


@dataclass(frozen=True, kw_only=True)
class Page(Route):
    """Answered from what is known: never refused, not even while the service shuts down."""

    answer: Callable[[Host, Request], Awaitable[Reply]]
    methods: tuple[str, ...] = ("GET", "HEAD")


@dataclass(frozen=True, kw_only=True)
class Work(Route):
    """Something is computed from the body: within a deadline, for a client that is still there."""

    answer: Callable[[Host, Request, bytes], Awaitable[Reply]]
    methods: tuple[str, ...] = ("POST",)
