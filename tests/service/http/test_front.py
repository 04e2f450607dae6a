"""A request is answered exactly once: with its answer, or in its route's words."""

import asyncio
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from service.engine.appointments import Visitor
from service.engine.deadline import deadline
from service.engine.limits import Limits
from service.engine.runner import Runner
from service.errors import EkibenError
from service.http.front import LONG_BYTES, ROUTES, Front, find_route
from service.http.traffic import Traffic
from tests.service.garbage import garbage_of

CLASSIFY = {"model": "tiny-images", "images": [[[1] * 4] * 4]}


class Exchange:
    """One request to the routes alone, in front of an app that must not be reached."""

    def __init__(self, host: Any, *, body_timeout_s: float = 5.0) -> None:
        self.host = host
        self.front = Front(self._unreachable, host=lambda: host, body_timeout_s=body_timeout_s)
        self.sent: list[Any] = []

    async def _unreachable(self, *_: Any) -> None:
        raise AssertionError("not a route of ours")

    def request(self, method: str, path: str, messages: Iterator[dict[str, Any]], **headers: str) -> None:
        asyncio.run(self.ask(method, path, messages, **headers))

    async def ask(self, method: str, path: str, messages: Iterator[dict[str, Any]], **headers: str) -> None:
        async def receive() -> Any:
            return next(messages)

        async def send(message: Any) -> None:
            self.sent.append(message)

        pairs = [(key.replace("_", "-").encode(), value.encode()) for key, value in headers.items()]
        scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": pairs}
        await self.front(scope, receive, send)

    @property
    def problem(self) -> dict[str, Any]:
        document: dict[str, Any] = orjson.loads(self.sent[1]["body"])
        assert document["status"] == self.sent[0]["status"]
        return document


def whole(body: bytes) -> Iterator[dict[str, Any]]:
    return iter([{"type": "http.request", "body": body}])


class Troubled:
    """A repository in trouble."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def get(self, name: str) -> Any:
        raise self._error

    def not_ready_reason(self) -> str:
        return "tiny-images is VERIFYING"


def host_with(error: Exception) -> Any:
    return SimpleNamespace(
        repository=Troubled(error),
        runner=Runner(),
        max_body_bytes=1000,
        draining=False,
        traffic=Traffic(),
        sharing=None,
    )


def classify(exchange: Exchange, **headers: str) -> None:
    exchange.request(
        "POST", "/classify", whole(orjson.dumps(CLASSIFY)), **{"content_type": "application/json", **headers}
    )


def test_what_nobody_foresaw_is_logged_under_the_number_that_the_client_gets(caplog: pytest.LogCaptureFixture) -> None:
    exchange = Exchange(host_with(KeyError("secret")))
    classify(exchange)
    assert exchange.problem["code"] == "internal"
    assert "secret" not in exchange.sent[1]["body"].decode()
    number = exchange.problem["detail"].split()[-1]
    assert number in caplog.text
    assert "secret" in caplog.text


def test_not_ready_says_why() -> None:
    exchange = Exchange(host_with(KeyError()))
    exchange.request("GET", "/readyz", whole(b""))
    assert exchange.problem["code"] == "not-ready"
    assert exchange.problem["status"] == 503
    assert exchange.problem["detail"] == "tiny-images is VERIFYING"


@pytest.mark.parametrize(
    ("body_timeout_s", "request_timeout_s", "headers"),
    [(0.01, 300, []), (300, 0.01, []), (300, 300, [(b"x-request-timeout-ms", b"10")])],
    ids=["of bodies", "of requests", "its own"],
)
def test_a_body_that_never_arrives_is_given_up(
    body_timeout_s: float, request_timeout_s: float, headers: list[tuple[bytes, bytes]]
) -> None:
    host = host_with(KeyError())
    host.runner = Runner(limits=Limits(timeout_s=request_timeout_s))
    exchange = Exchange(host, body_timeout_s=body_timeout_s)

    async def never() -> Any:
        await asyncio.sleep(60)

    async def ask() -> None:
        async def send(message: Any) -> None:
            exchange.sent.append(message)

        await exchange.front({"type": "http", "method": "POST", "path": "/classify", "headers": headers}, never, send)

    asyncio.run(ask())
    assert exchange.problem["code"] == "timeout"
    assert exchange.problem["status"] == 504


def test_while_the_service_shuts_down_work_is_refused_and_said_when_to_come_back() -> None:
    host = host_with(KeyError())
    host.draining = True
    exchange = Exchange(host)
    classify(exchange)
    assert exchange.problem["code"] == "not-ready"
    assert (b"retry-after", b"1") in exchange.sent[0]["headers"]
    probe = Exchange(host)
    probe.request("GET", "/readyz", whole(b""))
    assert probe.problem["detail"] == "the service is shutting down"
    alive = Exchange(host)
    alive.request("GET", "/livez", whole(b""))
    assert alive.sent[0]["status"] == 200


def test_when_to_come_back_is_rounded_up_and_given_in_milliseconds_too() -> None:
    exchange = Exchange(host_with(EkibenError("overloaded", "full", retry_after_s=1.2304)))
    classify(exchange)
    assert exchange.problem["status"] == 503
    assert exchange.sent[0]["headers"][2:] == [(b"retry-after", b"2"), (b"retry-after-ms", b"1231")]


class Refusing:
    """A busy engine that refuses before a body is awaited, or before it is parsed."""

    is_busy = True
    judged = ("/classify",)
    limits = Limits()

    def __init__(self, *, unread: bool) -> None:
        self._unread = unread
        self.visitor = Visitor("/classify", "", time.monotonic() + 5)
        self.asked: list[Any] = []

    def begin(self) -> None: ...

    def knock(self, *visitor: Any) -> Any:
        self.asked.append(visitor)
        return 2.0 if self._unread else self.visitor

    def read(self, *visitor: Any) -> None:
        self.asked.append(visitor)
        raise EkibenError("overloaded", "too late", retry_after_s=1.0)

    def forget(self, visitor: Any) -> None:
        self.asked.append((visitor,))


def test_the_engine_may_refuse_before_a_body_is_awaited() -> None:
    host = host_with(AssertionError("parsed"))
    host.runner = Refusing(unread=True)
    exchange = Exchange(host)
    headers = {"x_request_timeout_ms": "1500", "x_forwarded_for": "1.2.3.4", "content_length": "100"}
    exchange.request("POST", "/classify", iter([]), **headers)
    assert (exchange.problem["code"], host.traffic.answers) == ("overloaded", {("/classify", 503): 1})
    assert (b"retry-after", b"2") in exchange.sent[0]["headers"]
    assert host.runner.asked == [("/classify", "1.2.3.4", 1.5, 0.0, 0.0)]


def test_the_engine_may_refuse_before_a_body_is_parsed() -> None:
    host = host_with(AssertionError("parsed"))
    host.runner = Refusing(unread=False)
    exchange = Exchange(host)
    exchange.request("POST", "/classify", whole(b"what?"), content_length="5")
    assert exchange.problem["code"] == "overloaded"
    visitor = host.runner.visitor
    assert host.runner.asked == [
        ("/classify", ":0", None, 0.0, 0.0),
        (visitor, "/classify", ":0", b"what?"),
        (visitor,),
    ]
    assert host.traffic.in_flight == 0


@pytest.mark.parametrize("headers", [{}, {"content_length": f"{LONG_BYTES}"}])
def test_a_body_that_may_be_on_its_way_is_read_first(headers: dict[str, str]) -> None:
    host = host_with(KeyError())
    host.max_body_bytes = 2 * LONG_BYTES
    host.runner = Refusing(unread=True)
    exchange = Exchange(host)
    exchange.request("POST", "/classify", whole(b"what?"), **headers)
    assert exchange.problem["code"] == "overloaded"
    assert host.runner.asked == [(None, "/classify", ":0", b"what?")]


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"x_request_timeout_ms": "0" * 5000 + "1"}, "overloaded"),
        ({"x_request_timeout_ms": "0" * 5000}, "invalid-request"),
        ({"x_request_timeout_ms": "9" * 5000}, "invalid-request"),
        ({"content_length": "9" * 5000}, "body-too-large"),
        ({"content_length": "0" * 5000 + "1"}, "overloaded"),
    ],
)
def test_a_long_number_in_a_header_is_refused_as_any_other_before_a_body_is_read(
    headers: dict[str, str], code: str
) -> None:
    host = host_with(KeyError())
    host.runner = Refusing(unread=True)
    exchange = Exchange(host)
    exchange.request("POST", "/classify", whole(b""), **{"content_length": "1", **headers})
    assert exchange.problem["code"] == code


def test_what_nobody_foresaw_before_a_body_is_read_is_told_in_our_words() -> None:
    host = host_with(KeyError())
    host.runner = SimpleNamespace(judged=("/classify",), is_busy=True)
    exchange = Exchange(host)
    exchange.request("POST", "/classify", iter([]), content_length="1")
    assert (exchange.problem["code"], exchange.problem["status"]) == ("internal", 500)


@pytest.mark.parametrize(("method", "code"), [("POST", "invalid-request"), ("GET", "method-not-allowed")])
def test_who_asks_wrongly_is_told_so_even_when_all_are_refused(method: str, code: str) -> None:
    host = host_with(KeyError())
    host.runner = Refusing(unread=True)
    exchange = Exchange(host)
    exchange.request(method, "/classify", whole(b""), x_request_timeout_ms="soon", content_length="1")
    assert (exchange.problem["code"], host.runner.asked) == (code, [])


def host_that_notes_deadlines() -> tuple[Any, list[float | None]]:
    seen: list[float | None] = []

    def get(_: str) -> Any:
        seen.append(deadline())
        raise EkibenError("timeout", "too late")

    host = host_with(KeyError())
    host.repository.get = get
    return host, seen


def test_the_clients_deadline_reaches_the_engine() -> None:
    host, seen = host_that_notes_deadlines()
    before = time.monotonic()
    default_s = host.runner.limits.timeout_s
    for header in ({"x_request_timeout_ms": "1500"}, {}):
        classify(Exchange(host), **header)
    for end, limit_s in zip(seen, (1.5, default_s), strict=True):
        assert end is not None
        assert before + limit_s <= end <= time.monotonic() + limit_s


def test_a_request_has_no_deadline_of_one_before_it_in_its_task() -> None:
    """uvicorn begins what is pipelined in the task of the request before."""
    host, seen = host_that_notes_deadlines()

    async def both() -> None:
        for header in ({"x_request_timeout_ms": "100"}, {}):
            messages = whole(orjson.dumps(CLASSIFY))
            await Exchange(host).ask("POST", "/classify", messages, content_type="application/json", **header)

    before = time.monotonic()
    asyncio.run(both())
    first, second = seen
    assert first is not None
    assert second is not None
    assert second >= before + host.runner.limits.timeout_s
    assert first < second


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "soon", "86400001", "9" * 30])
def test_a_deadline_that_is_none_is_refused(value: str) -> None:
    exchange = Exchange(host_with(KeyError()))
    classify(exchange, x_request_timeout_ms=value)
    assert exchange.problem["code"] == "invalid-request"
    assert "X-Request-Timeout-Ms" in exchange.problem["detail"]


def test_routes_are_few_and_named_by_their_pattern() -> None:
    assert all(ROUTES[name].name == name for name in ROUTES)
    assert {"/classify", "/sequence-predict", "/generate", "/readyz", "/v2"} <= set(ROUTES)
    names = {path: (route := find_route(path)) and route.name for path in PATHS}
    assert names == PATHS


PATHS = {
    "/models/x": "/models/{model}",
    "/v2/models/x": "/v2/models/{model}",
    "/v2/models/x/versions/1/infer": "/v2/models/{model}/infer",
    "/v2/models/x/infer": "/v2/models/{model}/infer",
    "/v2/models/x/ready": "/v2/models/{model}/ready",
    "/v2/else": "/v2/...",
    "/v2/models/x/y": "/v2/...",
    "/docs.json": None,
    "/": None,
}


def test_a_client_that_left_is_not_answered() -> None:
    exchange = Exchange(host_with(KeyError()))
    messages = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    exchange.request("POST", "/classify", iter(messages), content_type="application/json")
    assert exchange.sent == []
    assert exchange.host.traffic.answers == {("/classify", 499): 1}
    assert exchange.host.traffic.in_flight == 0


def test_refused_requests_leave_nothing_for_the_collector() -> None:
    def get(_: str) -> Any:
        raise EkibenError("overloaded", "full")

    host = host_with(KeyError())
    host.repository.get = get
    front = Front(None, host=lambda: host)  # type: ignore[arg-type]
    content = orjson.dumps(CLASSIFY)

    async def send(_: Any) -> None: ...

    async def ask(times: int) -> None:
        for _ in range(times):
            messages = whole(content)

            async def receive(messages: Iterator[dict[str, Any]] = messages) -> Any:
                return next(messages)

            headers = [(b"content-type", b"application/json")]
            scope = {"type": "http", "method": "POST", "path": "/classify", "query_string": b"", "headers": headers}
            await front(scope, receive, send)

    async def garbage() -> int:
        await ask(1)
        return await garbage_of(ask(50))

    assert asyncio.run(garbage()) < 50
    assert host.traffic.answers["/classify", 503] == 51
