"""granian's thread refuses requests and asks for bodies; everything else is answered on the event loop."""

import asyncio
import inspect
import time
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any

import pytest
from granian import _futures

from service.engine.context import Permit, RequestContext
from service.engine.runner import Runner
from service.errors import EkibenError
from service.http.granian import pre_admission
from service.http.granian.pre_admission import PreAdmissionHook
from service.http.router import Router
from tests.service.http.granian.fakes import Protocol, scope, state_with


class Watcher:
    """What granian's thread hands over for one request."""

    def __init__(self, protocol: Protocol, asked: Any) -> None:
        self.proto, self.scope = protocol, asked
        self.task: Any = None
        self.ended: list[BaseException | None] = []

    def taskref(self, task: Any) -> None:
        self.task = task

    def done(self) -> None:
        self.ended.append(None)

    def err(self, error: BaseException) -> None:
        self.ended.append(error)

    async def wait(self) -> None:
        while not self.ended:
            await asyncio.sleep(0)


def hook_of(state: Any, app: Any = None) -> PreAdmissionHook:
    return PreAdmissionHook(Router(app, state=lambda: state), asyncio.get_running_loop(), copy_context(), None)


def handed_over(state: Any, watcher: Watcher) -> Watcher:
    """The watcher after the hook ran on another thread and the event loop answered."""

    async def main() -> None:
        await asyncio.to_thread(hook_of(state), watcher)
        await asyncio.sleep(0)
        if watcher.task is not None:
            await watcher.task

    asyncio.run(main())
    return watcher


class SheddingRunner(Runner):
    """A runner that is its own admission controller."""

    expects_retries = True

    def __init__(self) -> None:
        super().__init__()
        self.admission = self  # type: ignore[assignment]

    def try_admit(self, context: RequestContext) -> Permit:
        raise EkibenError("overloaded", "the deadline would be missed", retry_after_s=3.0)


def test_granian_still_has_the_function_that_is_replaced() -> None:
    """It is not part of granian's interface: without it every request would be refused on the event loop, and late."""
    parameters = list(inspect.signature(partial(PreAdmissionHook, None)).parameters)  # type: ignore[arg-type]
    assert len(inspect.signature(_futures._cbsched_aioschedule).parameters) == len(parameters) == 3
    assert "_cbsched_aioschedule(loop, self._ctx, cb)" in inspect.getsource(_futures._CBSchedulerAIO)


def test_install_replaces_the_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_futures, "_cbsched_aioschedule", None)
    router = Router(None, state=state_with)  # type: ignore[arg-type]
    pre_admission.install(router)
    scheduler: Any = _futures._cbsched_aioschedule
    assert (scheduler.func, scheduler.args) == (PreAdmissionHook, (router,))


def test_requests_are_answered_on_the_event_loop() -> None:
    watcher = handed_over(state_with(), Watcher(Protocol(), scope("/livez", "GET", x_request_id="a-1")))
    headers = [("content-type", "application/json"), ("x-request-id", "a-1")]
    assert watcher.proto.responses == [(200, headers, b'{"live":true}')]
    assert watcher.ended == [None]


def test_a_request_is_answered_in_the_context_that_granian_gives() -> None:
    variable, seen = ContextVar("variable", default="another"), []

    async def app(_: Any, __: Any, send: Any) -> None:
        seen.append(variable.get())
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def main() -> None:
        token = variable.set("granian's")
        hook = hook_of(state_with(), app)
        variable.reset(token)
        watcher = Watcher(Protocol(), scope("/schema.json"))
        hook(watcher)
        await watcher.wait()

    asyncio.run(main())
    assert seen == ["granian's"]


def test_an_unreadable_timeout_is_refused_by_the_router() -> None:
    asked = scope("/classify", x_request_timeout_ms=None)  # granian cannot decode the value
    ((status, _, body),) = handed_over(state_with(), Watcher(Protocol(b"{}"), asked)).proto.responses
    assert (status, b"X-Request-Timeout-Ms: expected" in body) == (422, True)


@pytest.mark.parametrize(
    ("asked", "fetched", "status"),
    [
        (scope("/classify", content_length="2"), True, 415),
        (scope("/classify", content_length="11"), False, 413),  # over the limit
        (scope("/classify"), False, 415),  # of unknown length
        (scope("/classify", "GET", content_length="2"), False, 405),
        (scope("/livez", "GET"), False, 200),
        (scope("/schema.json", content_length="2"), False, 204),
        (scope("/elsewhere", content_length="2"), False, 404),
    ],
)
def test_bodies_of_inference_requests_are_asked_for(asked: Any, fetched: bool, status: int) -> None:
    class CountingProtocol(Protocol):
        calls = 0

        def __call__(self) -> Any:
            self.calls += 1
            return super().__call__()

    async def elsewhere(_: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def main() -> tuple[int, int, list[int]]:
        protocol = CountingProtocol(b"[]")
        watcher = Watcher(protocol, asked)
        hook_of(state_with(), elsewhere)(watcher)
        before = protocol.calls
        await watcher.wait()
        return before, protocol.calls, [status for status, _, _ in protocol.responses]

    before, calls, statuses = asyncio.run(main())
    assert (before, statuses) == (fetched, [status])
    assert calls <= 1, "a body can be read once"


@pytest.mark.parametrize(
    ("closing", "headers", "status"), [(True, {}, 503), (False, {"x_request_timeout_ms": "0"}, 422)]
)
def test_a_refused_request_stops_the_reading_of_its_body(closing: bool, headers: dict[str, str], status: int) -> None:
    class SlowProtocol(Protocol):
        def __call__(self) -> Any:
            self.body = asyncio.get_running_loop().create_future()
            return self.body

    async def main() -> tuple[list[int], bool]:
        protocol = SlowProtocol()
        watcher = Watcher(protocol, scope("/classify", content_length="9", **headers))
        hook_of(state_with(closing=closing))(watcher)
        await watcher.wait()
        return [status for status, _, _ in protocol.responses], protocol.body.cancelled()

    assert asyncio.run(main()) == ([status], True)


def test_a_client_that_returns_early_is_refused_on_granians_thread() -> None:
    asked = scope("/classify", content_length="9", x_request_id="a-1", traceparent=f"00-{'1' * 32}-{'2' * 16}-01")
    watcher = handed_over(state_with(SheddingRunner()), Watcher(Protocol(), asked))
    ((status, headers, body),) = watcher.proto.responses
    assert dict(headers)["x-request-id"] == "a-1"
    assert dict(headers)["traceparent"].startswith(f"00-{'1' * 32}-")
    assert (status, ("retry-after", "3") in headers, b"deadline would be missed" in body) == (503, True, True)
    assert watcher.task is None


def test_waiting_for_the_event_loop_counts_towards_the_deadline() -> None:
    contexts: list[RequestContext] = []

    class NotingRunner(SheddingRunner):
        def try_admit(self, context: RequestContext) -> Permit:
            contexts.append(context)
            return Permit()

    async def main() -> tuple[float, float]:
        asked = scope("/classify", x_request_timeout_ms="5000", content_length="2")
        watcher = Watcher(Protocol(b"[]"), asked)
        started = time.monotonic()
        hook_of(state_with(NotingRunner()))(watcher)
        handed_over = time.monotonic()
        time.sleep(0.05)
        await watcher.wait()
        return started, handed_over

    started, handed_over = asyncio.run(main())
    (context,) = contexts  # made once
    assert started + 5 <= context.deadline <= handed_over + 5


def test_an_unforeseen_error_does_not_end_granians_thread() -> None:
    class BrokenRouter:
        def state(self) -> None:
            raise KeyError("broken")

    async def main() -> list[Any]:
        watcher = Watcher(Protocol(b"[]"), scope("/classify", content_length="2"))
        hook = hook_of(state_with())
        working, hook._router = hook._router, BrokenRouter()  # type: ignore[assignment]
        hook(watcher)
        hook._router = working
        await watcher.wait()
        return watcher.proto.responses

    assert asyncio.run(main())[0][0] == 415


def test_granian_learns_of_a_cancelled_task() -> None:
    class CancelledRunner(Runner):
        def new_context(self, **_: Any) -> RequestContext:
            raise asyncio.CancelledError

    watcher = Watcher(Protocol(b"{}"), scope("/classify"))
    (error,) = handed_over(state_with(CancelledRunner()), watcher).ended
    assert isinstance(error, asyncio.CancelledError)
