"""A request is answered exactly once: with its answer, or with an error in the format of its route."""

import asyncio
import time
from collections.abc import Iterator
from ipaddress import ip_network
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from service.engine.context import Permit, RequestContext
from service.engine.limits import Limits
from service.engine.runner import Runner
from service.errors import EkibenError
from service.http.body_budget import BodyBudget
from service.http.route import InferenceRoute
from service.http.router import MAX_UNREAD_BYTES, ROUTES, Router, find_route, served_routes
from service.http.telemetry.request_metrics import RequestMetrics
from service.http.wire.asgi import AsgiRequest
from service.http.wire.messages import Response
from tests.service.garbage import count_cyclic_garbage

CLASSIFY = {"model": "tiny-images", "images": [[[1] * 4] * 4]}


class AsgiCall:
    """One request to the routes alone, in front of an app that must not be reached."""

    def __init__(self, state: Any, *, body_timeout_s: float = 5.0, client: tuple[str, int] | None = None) -> None:
        self._client = client
        self.state = state
        self.router = Router(self._unreachable, state=lambda: state, body_timeout_s=body_timeout_s)
        self.sent: list[Any] = []

    async def _unreachable(self, *_: Any) -> None:
        raise AssertionError("not a route of ours")

    def request(self, method: str, path: str, messages: Iterator[dict[str, Any]], **headers: str) -> None:
        asyncio.run(self.send(method, path, messages, **headers))

    async def send(self, method: str, path: str, messages: Iterator[dict[str, Any]], **headers: str) -> None:
        async def receive() -> Any:
            return next(messages)

        async def receive_response(message: Any) -> None:
            self.sent.append(message)

        headers = {"host": "x", **headers}
        pairs = [(key.replace("_", "-").encode(), value.encode()) for key, value in headers.items()]
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "path": path,
            "query_string": b"",
            "headers": pairs,
        }
        scope["client"] = self._client
        await self.router(scope, receive, receive_response)

    @property
    def problem(self) -> dict[str, Any]:
        document: dict[str, Any] = orjson.loads(self.sent[1]["body"])
        assert document["status"] == self.sent[0]["status"]
        return document


def whole(body: bytes) -> Iterator[dict[str, Any]]:
    return iter([{"type": "http.request", "body": body}])


class FailingRepository:
    """A repository whose models cannot be had."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def get(self, name: str) -> Any:
        raise self._error

    def not_ready_reason(self) -> str:
        return "tiny-images is VERIFYING"


def state_with(error: Exception) -> Any:
    return SimpleNamespace(
        repository=FailingRepository(error),
        runner=Runner(),
        max_body_bytes=1000,
        bodies=BodyBudget(1 << 20, 1000, ()),
        trusted_proxies=(),
        draining=False,
        closing=False,
        request_metrics=RequestMetrics(),
        multiprocess_metrics=None,
    )


def classify(call: AsgiCall, **headers: str) -> None:
    call.request("POST", "/classify", whole(orjson.dumps(CLASSIFY)), **{"content_type": "application/json", **headers})


def test_an_unforeseen_error_is_logged_under_the_number_that_the_client_gets(caplog: pytest.LogCaptureFixture) -> None:
    call = AsgiCall(state_with(KeyError("secret")))
    classify(call)
    assert call.problem["code"] == "internal"
    assert "secret" not in call.sent[1]["body"].decode()
    number = call.problem["detail"].split()[-1]
    assert number in caplog.text
    assert "secret" in caplog.text


@pytest.mark.parametrize("error", [EkibenError("timeout", "late"), KeyError("secret")])
def test_who_keeps_an_error_that_was_answered_does_not_keep_the_request(error: Exception) -> None:
    call = AsgiCall(state_with(error))
    classify(call)
    assert call.sent[0]["status"] >= 500
    assert error.__traceback__ is None


@pytest.mark.parametrize(
    ("encoding", "code", "detail"),
    [
        ("br", "unsupported-media-type", "expected no Content-Encoding but one of gzip, deflate, got 'br'"),
        (
            "gzip, gzip",
            "unsupported-media-type",
            "expected no Content-Encoding but one of gzip, deflate, got 'gzip, gzip'",
        ),
        ("gzip", "malformed-message", "expected gzip data: Error -3 while decompressing data: incorrect header check"),
        ("identity", "wrong-task", "the body was read"),
    ],
)
def test_a_content_coding_is_understood_or_refused(encoding: str, code: str, detail: str) -> None:
    call = AsgiCall(state_with(EkibenError("wrong-task", "the body was read")))
    classify(call, content_encoding=encoding)
    assert (call.problem["code"], call.problem["detail"]) == (code, detail)


def test_not_ready_gives_the_reason() -> None:
    call = AsgiCall(state_with(KeyError()))
    call.request("GET", "/readyz", whole(b""))
    assert call.problem["code"] == "not-ready"
    assert call.problem["status"] == 503
    assert call.problem["detail"] == "tiny-images is VERIFYING"


@pytest.mark.parametrize(
    ("body_timeout_s", "request_timeout_s", "headers"),
    [(0.01, 300, []), (300, 0.01, []), (300, 300, [(b"x-request-timeout-ms", b"10")])],
    ids=["body timeout", "default timeout", "requested timeout"],
)
def test_a_body_that_never_arrives_times_out(
    body_timeout_s: float, request_timeout_s: float, headers: list[tuple[bytes, bytes]]
) -> None:
    state = state_with(KeyError())
    state.runner = Runner(limits=Limits(timeout_s=request_timeout_s))
    call = AsgiCall(state, body_timeout_s=body_timeout_s)

    async def never() -> Any:
        await asyncio.sleep(60)

    async def ask() -> None:
        async def send(message: Any) -> None:
            call.sent.append(message)

        scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": "/classify"}
        await call.router({**scope, "headers": [(b"host", b"x"), *headers]}, never, send)

    asyncio.run(ask())
    assert call.problem["code"] == "timeout"
    assert call.problem["status"] == 504


def test_an_early_refusal_is_counted_with_its_duration() -> None:
    state = shedding_state()
    router = Router(None, state=lambda: state)  # type: ignore[arg-type]
    headers = [(b"content-length", b"1")]
    request = AsgiRequest({"method": "POST", "path": "/classify", "headers": headers}, None, None)  # type: ignore[arg-type]
    route = ROUTES["/classify"]
    assert isinstance(route, InferenceRoute)
    response = router.refuse_early(state, route, request)
    assert response is not None
    assert (response.status, state.request_metrics.responses) == (503, {("/classify", 503): 1})
    assert 0 <= state.request_metrics.durations["/classify"].sum_s < 10


def test_a_head_request_is_answered_without_a_body() -> None:
    call = AsgiCall(state_with(KeyError()))
    call.request("HEAD", "/livez", whole(b""))
    assert (call.sent[0]["status"], call.sent[1]["body"]) == (200, b"")


@pytest.mark.parametrize("scope", [{"type": "lifespan"}, {"type": "websocket", "path": "/classify"}])
def test_what_is_not_http_goes_to_the_framework(scope: dict[str, Any]) -> None:
    seen: list[Any] = []

    async def app(scope: Any, *_: Any) -> None:
        seen.append(scope)

    asyncio.run(Router(app, state=lambda: state_with(KeyError()))(scope, None, None))  # type: ignore[arg-type]
    assert seen == [scope]


def test_a_closing_service_refuses_inference_with_a_retry_time() -> None:
    state = state_with(KeyError())
    state.draining = state.closing = True
    call = AsgiCall(state)
    classify(call)
    assert call.problem["code"] == "not-ready"
    assert (b"retry-after", b"1") in call.sent[0]["headers"]
    probe = AsgiCall(state)
    probe.request("GET", "/readyz", whole(b""))
    assert probe.problem["detail"] == "the service is shutting down"
    alive = AsgiCall(state)
    alive.request("GET", "/livez", whole(b""))
    assert alive.sent[0]["status"] == 200


def test_a_draining_service_that_is_not_closing_yet_answers_but_is_not_ready() -> None:
    state = state_with(EkibenError("wrong-task", "of the route"))
    state.draining = True
    call = AsgiCall(state)
    classify(call)
    assert call.problem["code"] == "wrong-task"
    probe = AsgiCall(state)
    probe.request("GET", "/readyz", whole(b""))
    assert probe.problem["detail"] == "the service is shutting down"


def test_retry_after_is_rounded_up_and_given_in_milliseconds_too() -> None:
    call = AsgiCall(state_with(EkibenError("overloaded", "full", retry_after_s=1.2304)))
    classify(call, x_request_id="a-1")
    assert call.problem["status"] == 503
    retry = [(b"retry-after", b"2"), (b"retry-after-ms", b"1231")]
    assert call.sent[0]["headers"][2:] == [*retry, (b"x-request-id", b"a-1")]


class SheddingRunner(Runner):
    """Expects clients to return, and refuses every request that it sees before it is read."""

    expects_retries = True

    def __init__(self) -> None:
        super().__init__()
        self.admission = self  # type: ignore[assignment]
        self.seen: list[RequestContext] = []

    def try_admit(self, context: RequestContext) -> Permit:
        self.seen.append(context)
        raise EkibenError("overloaded", "the deadline would be missed", retry_after_s=2.0)


def shedding_state() -> Any:
    state = state_with(AssertionError("the body was parsed"))
    state.runner = SheddingRunner()
    state.max_body_bytes = 2 * MAX_UNREAD_BYTES
    return state


def test_a_request_may_be_refused_before_its_body_is_awaited() -> None:
    state = shedding_state()
    call = AsgiCall(state)
    call.request("POST", "/classify", iter([]), x_request_timeout_ms="1500", content_length="100")
    assert (call.problem["code"], state.request_metrics.responses) == ("overloaded", {("/classify", 503): 1})
    assert (b"retry-after", b"2") in call.sent[0]["headers"]
    assert 0 <= state.request_metrics.durations["/classify"].sum_s < 10
    (context,) = state.runner.seen
    assert (context.route, context.client, context.timeout_s) == ("/classify", ":0", 1.5)
    assert state.request_metrics.in_flight == 0


def test_a_permit_is_released_when_the_request_is_answered() -> None:
    released: list[float] = []
    state = state_with(KeyError())

    class AdmittingRunner(SheddingRunner):
        def try_admit(self, context: RequestContext) -> Permit:
            return Permit(1.5, release=released.append)

    state.runner = AdmittingRunner()
    call = AsgiCall(state)
    classify(call, content_length="100")
    assert (call.problem["code"], released) == ("internal", [1.5])


def test_a_permit_is_released_when_the_service_closes_before_the_request_is_answered() -> None:
    released: list[float] = []
    state = state_with(KeyError())
    state.closing = True
    router = Router(None, state=lambda: state)  # type: ignore[arg-type]
    context = state.runner.new_context()
    context.permit = Permit(1.5, release=released.append)
    scope = {"method": "POST", "path": "/classify", "headers": [(b"host", b"x")]}
    request = AsgiRequest(scope, None, None)  # type: ignore[arg-type]
    request.context = context
    request.key_permit = Permit(2.5, release=released.append)
    response = asyncio.run(router.respond(ROUTES["/classify"], request))
    assert response is not None
    assert (response.status, sorted(released)) == (503, [1.5, 2.5])


@pytest.mark.parametrize("headers", [{}, {"content_length": f"{MAX_UNREAD_BYTES}"}])
def test_a_body_that_may_be_on_its_way_is_read_first(headers: dict[str, str]) -> None:
    state = shedding_state()
    call = AsgiCall(state)
    call.request("POST", "/classify", whole(b"what?"), content_type="application/json", **headers)
    assert (call.problem["code"], state.runner.seen) == ("malformed-json", [])


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
def test_long_numbers_in_headers_are_read_or_refused_before_the_body(headers: dict[str, str], code: str) -> None:
    call = AsgiCall(shedding_state())
    call.request("POST", "/classify", whole(b""), **{"content_length": "1", **headers})
    assert call.problem["code"] == code


def test_an_unforeseen_error_before_the_body_is_read_is_an_internal_error() -> None:
    state = state_with(KeyError())
    state.runner = SimpleNamespace()
    call = AsgiCall(state)
    call.request("POST", "/classify", iter([]), content_length="1")
    assert (call.problem["code"], call.problem["status"]) == ("internal", 500)


@pytest.mark.parametrize(("method", "code"), [("POST", "invalid-request"), ("GET", "method-not-allowed")])
def test_an_invalid_request_is_told_so_even_while_requests_are_refused(method: str, code: str) -> None:
    state = shedding_state()
    call = AsgiCall(state)
    call.request(method, "/classify", whole(b""), x_request_timeout_ms="soon", content_length="1")
    assert (call.problem["code"], state.runner.seen) == (code, [])


def test_a_forwarded_address_is_believed_from_trusted_proxies_only() -> None:
    for proxies, client in (((), ":0"), ((ip_network("10.0.0.0/8"),), ":0"), ((ip_network("::1/128"),), "1.2.3.4")):
        state = shedding_state()
        state.trusted_proxies = proxies
        call = AsgiCall(state, client=("::1", 5) if proxies and proxies[0].version == 6 else None)
        call.request("POST", "/classify", iter([]), x_forwarded_for="6.6.6.6, 1.2.3.4, ::1", content_length="1")
        assert [context.client for context in state.runner.seen] == [client]


def deadlines_of(*headers: dict[str, str]) -> list[float]:
    """The seconds from sending to the deadline, of requests that are sent one after the other in one task."""
    state = state_with(KeyError())
    seen: list[float] = []

    async def handle(_: Any, __: Any, ___: bytes, context: RequestContext) -> Response:
        seen.append(context.deadline)
        raise EkibenError("timeout", "too late")

    async def send_all() -> list[float]:
        started = []
        for header in headers:
            started.append(time.monotonic())
            await AsgiCall(state).send("POST", "/classify", whole(b"{}"), **header)
        return started

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ROUTES, "/classify", InferenceRoute(name="/classify", handle=handle))
        find_route.cache_clear()
        started = asyncio.run(send_all())
    find_route.cache_clear()
    return [end - start for start, end in zip(started, seen, strict=True)]


def test_the_deadline_of_the_client_reaches_the_handler() -> None:
    asked, default = deadlines_of({"x_request_timeout_ms": "1500"}, {})
    assert 1.5 <= asked < 1.5 + 10
    assert Limits().timeout_s <= default < Limits().timeout_s + 10


def test_pipelined_requests_have_their_own_deadlines() -> None:
    """uvicorn answers a pipelined request in the task of the one before."""
    first, second = deadlines_of({"x_request_timeout_ms": "100"}, {})
    assert first < Limits().timeout_s <= second


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "soon", "86400001", "9" * 30])
def test_an_invalid_timeout_is_refused(value: str) -> None:
    call = AsgiCall(state_with(KeyError()))
    classify(call, x_request_timeout_ms=value)
    assert call.problem["code"] == "invalid-request"
    assert "X-Request-Timeout-Ms" in call.problem["detail"]


def test_routes_are_named_by_their_pattern() -> None:
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
    "/docs.json": "/docs.json",
    "/": "/",
    "/playground": "/playground",
    "/playground/app.js": "/playground/{asset}",
    "/playground/playground/app.js": "/playground/{asset}",
    "/models/x/card": "/models/{model}/card",
    "/models/x/card/a.png": "/models/{model}/card/{plot}",
    "/models/x/cards": "/models/{model}",
    "/static_content/index.css": "/...",
    "/nothing": "/...",
    "/schema.json": None,
}


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_no_path_but_one_reaches_the_framework(method: str) -> None:
    """Its app fails the test when it is called."""
    for path in ("/nothing", "/static_content/swagger-ui.css", "/docs", "/classify/x", "//classify", "/assets/x"):
        call = AsgiCall(state_with(KeyError()))
        call.request(method, path, whole(b""))
        assert (call.problem["code"], call.problem["status"]) == ("unknown-route", 404)


def test_served_routes_are_all_that_find_route_can_return() -> None:
    names = {route.name for route in served_routes()}
    assert set(ROUTES) < names
    assert {name for name in PATHS.values() if name} < names
    assert len(served_routes()) == len(names)


def test_a_disconnected_client_is_not_answered() -> None:
    call = AsgiCall(state_with(KeyError()))
    messages = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    call.request("POST", "/classify", iter(messages), content_type="application/json")
    assert call.sent == []
    assert call.state.request_metrics.responses == {("/classify", 499): 1}
    assert call.state.request_metrics.in_flight == 0


def test_refused_requests_leave_no_garbage() -> None:
    def get(_: str) -> Any:
        raise EkibenError("overloaded", "full")

    state = state_with(KeyError())
    state.repository.get = get
    router = Router(None, state=lambda: state)  # type: ignore[arg-type]
    content = orjson.dumps(CLASSIFY)

    async def send(_: Any) -> None: ...

    async def ask(times: int) -> None:
        for _ in range(times):
            messages = whole(content)

            async def receive(messages: Iterator[dict[str, Any]] = messages) -> Any:
                return next(messages)

            headers = [(b"host", b"x"), (b"content-type", b"application/json")]
            scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": "/classify", "query_string": b""}
            await router({**scope, "headers": headers}, receive, send)

    async def garbage() -> int:
        await ask(1)
        return await count_cyclic_garbage(ask(50))

    assert asyncio.run(garbage()) < 50
    assert state.request_metrics.responses["/classify", 503] == 51
