"""What granian hands over becomes a request, and an ASGI application's messages become an answer."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Iterator
from contextvars import copy_context
from types import SimpleNamespace
from typing import Any
from weakref import ref

import pytest
from granian.rsgi import ProtocolClosed
from service.engine.deadline import deadline

from service.engine.admission.retry_schedule import Visitor
from service.engine.limits import Limits
from service.engine.runner import Runner
from service.errors import EkibenError
from service.http.front import Front
from service.http.line import Line
from service.http.rsgi import Door, RsgiRequest, handle
from service.http.telemetry.request_metrics import RequestMetrics
from service.http.wire.messages import UNREADABLE, ClientDisconnectedError, client_address


class Gone:
    """granian's future of a client that has left."""

    def cancel(self, _: Any = None) -> None: ...

    def __await__(self) -> Iterator[None]:
        yield from ()


class Protocol:
    """granian's end of one request: a body in parts, None for a client that leaves, and what was answered."""

    def __init__(self, *parts: bytes | None) -> None:
        self._parts = list(parts)
        self.answers: list[tuple[int, list[tuple[str, str]], bytes]] = []
        self.streamed: list[bytes] = []

    async def __call__(self) -> bytes:
        if None in self._parts:
            raise ProtocolClosed
        return b"".join(part for part in self._parts if part is not None)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            if part is None:
                raise ProtocolClosed
            yield part

    def client_disconnect(self) -> Any:
        return Gone()

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.answers.append((status, headers, body))

    def response_stream(self, status: int, headers: list[tuple[str, str]]) -> Any:
        self.answers.append((status, headers, b""))

        async def send_bytes(body: bytes) -> None:
            self.streamed.append(body)

        return SimpleNamespace(send_bytes=send_bytes)


def scope(path: str = "/x", method: str = "POST", **headers: str | None) -> Any:
    return SimpleNamespace(
        proto="http", http_version="1.1", scheme="http", client="127.0.0.1:5", server="127.0.0.1:3000", method=method,
        path=path, query_string="a=%20b", headers={name.replace("_", "-"): value for name, value in headers.items()},
    )  # fmt: skip


def read(*parts: bytes | None, **headers: str) -> bytes:
    return asyncio.run(RsgiRequest(scope(**headers), Protocol(*parts)).body(10))  # type: ignore[arg-type]


def test_a_body_is_read_whole_announced_or_not() -> None:
    assert read(b"01", b"23", content_length="4") == b"0123"
    assert read(b"01", b"", b"23") == b"0123"
    assert read() == b""


@pytest.mark.parametrize(("parts", "headers"), [((), {"content_length": "11"}), ((b"x" * 6, b"x" * 5), {})])
def test_a_body_beyond_the_limit_is_refused(parts: tuple[bytes, ...], headers: dict[str, str]) -> None:
    with pytest.raises(EkibenError, match="at most 10 bytes") as caught:
        read(*parts, **headers)
    assert caught.value.slug == "body-too-large"


@pytest.mark.parametrize("headers", [{"content_length": "9"}, {}])
def test_a_client_that_leaves_is_noticed(headers: dict[str, str]) -> None:
    with pytest.raises(ClientDisconnectedError):
        read(b"x", None, **headers)


def test_headers_and_query_and_address() -> None:
    request = RsgiRequest(scope(accept="image/png"), Protocol())  # type: ignore[arg-type]
    assert (request.client, client_address(request)) == ("127.0.0.1:5", "127.0.0.1:5")
    assert client_address(RsgiRequest(scope(x_forwarded_for="::1"), Protocol())) == "::1"  # type: ignore[arg-type]
    assert (request.header("accept"), request.header("x-other"), request.query) == ("image/png", "", "a=%20b")


def test_a_header_that_granian_has_but_does_not_give_is_not_taken_for_none() -> None:
    asked = scope(x_request_timeout_ms=None)  # as it says of a value that is not ASCII
    watcher = handed_over(Runner(), Watcher(Protocol(b"{}"), scope("/classify", x_request_timeout_ms=None)))
    assert RsgiRequest(asked, Protocol()).header("x-request-timeout-ms") == UNREADABLE  # type: ignore[arg-type]
    ((status, _, answer),) = watcher.proto.answers
    assert (status, b"X-Request-Timeout-Ms: expected" in answer) == (422, True)


def answered(app: Any, protocol: Protocol, asked: Any) -> Protocol:
    host: Any = SimpleNamespace(draining=False, request_metrics=RequestMetrics(), max_body_bytes=10, runner=Runner())
    asyncio.run(handle(Front(app, host=lambda: host), asked, protocol))  # type: ignore[arg-type]
    return protocol


def test_a_route_is_answered_here() -> None:
    (answer,) = answered(None, Protocol(), scope("/livez", "GET")).answers
    assert answer == (200, [("content-type", "application/json")], b'{"live":true}')


def test_nobody_answers_a_client_that_left() -> None:
    assert answered(None, Protocol(None), scope("/classify", content_length="9")).answers == []


class Watcher:
    """granian's end of one request that its own thread hands over."""

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


def handed_over(runner: Any, watcher: Watcher) -> Watcher:
    host: Any = SimpleNamespace(draining=False, request_metrics=RequestMetrics(), max_body_bytes=10, runner=runner)

    async def main() -> None:
        door = Door(Front(None, host=lambda: host), asyncio.get_running_loop(), copy_context(), None)  # type: ignore[arg-type]
        await asyncio.to_thread(door, watcher)
        await asyncio.sleep(0)
        if watcher.task is not None:
            await watcher.task

    asyncio.run(main())
    return watcher


def test_what_granians_thread_hands_over_is_answered_on_the_event_loop() -> None:
    watcher = handed_over(Runner(), Watcher(Protocol(), scope("/livez", "GET")))
    assert watcher.proto.answers == [(200, [("content-type", "application/json")], b'{"live":true}')]
    assert watcher.ended == [None]


@pytest.mark.parametrize(
    ("asked", "fetched", "status"),
    [
        (scope("/classify", content_length="2"), True, 415),
        (scope("/classify", content_length="11"), False, 413),  # more than may come
        (scope("/classify"), False, 415),  # how much will come is not known
        (scope("/classify", "GET", content_length="2"), False, 405),
        (scope("/livez", "GET"), False, 200),
        (scope("/elsewhere", content_length="2"), False, 204),
    ],
)
def test_granians_thread_asks_for_the_body_of_what_will_be_computed(asked: Any, fetched: bool, status: int) -> None:
    class Counted(Protocol):
        calls = 0

        def __call__(self) -> Any:
            self.calls += 1
            return super().__call__()

    async def main() -> tuple[int, int, list[int]]:
        host: Any = SimpleNamespace(
            draining=False, request_metrics=RequestMetrics(), max_body_bytes=10, runner=Runner()
        )
        front = Front(elsewhere, host=lambda: host)
        door = Door(front, asyncio.get_running_loop(), copy_context(), None)  # type: ignore[arg-type]
        protocol = Counted(b"[]")
        watcher = Watcher(protocol, asked)
        door(watcher)
        before = protocol.calls
        while not watcher.ended:
            await asyncio.sleep(0)
        return before, protocol.calls, [status for status, _, _ in protocol.answers]

    async def elsewhere(_: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    before, calls, statuses = asyncio.run(main())
    assert (before, statuses) == (fetched, [status])
    assert calls <= 1, "a body is there once"


@pytest.mark.parametrize(
    ("draining", "headers", "status"), [(True, {}, 503), (False, {"x_request_timeout_ms": "0"}, 422)]
)
def test_nobody_waits_for_the_body_of_who_is_refused_before_it_is_here(
    draining: bool, headers: dict[str, str], status: int
) -> None:
    class Slow(Protocol):
        def __call__(self) -> Any:
            self.body = asyncio.get_running_loop().create_future()
            return self.body

    async def main() -> tuple[list[int], bool]:
        host: Any = SimpleNamespace(
            draining=draining, request_metrics=RequestMetrics(), max_body_bytes=10, runner=Runner()
        )
        door = Door(Front(None, host=lambda: host), asyncio.get_running_loop(), copy_context(), None)  # type: ignore[arg-type]
        protocol = Slow()
        watcher = Watcher(protocol, scope("/classify", content_length="9", **headers))
        door(watcher)
        while not watcher.ended:
            await asyncio.sleep(0)
        return [status for status, _, _ in protocol.answers], protocol.body.cancelled()

    assert asyncio.run(main()) == ([status], True)


def test_a_client_that_granian_knows_to_have_left_has_left() -> None:
    """granian answers then with an object that can be awaited and nothing else."""

    class Empty:
        def __await__(self) -> Iterator[None]:
            yield from ()

    class Left(Protocol):
        def client_disconnect(self) -> Any:
            return Empty()

    async def main() -> bool:
        left = asyncio.Event()
        gone = RsgiRequest(scope(), Left()).disconnected()  # type: ignore[arg-type]
        gone.add_done_callback(lambda _: left.set())
        await asyncio.wait_for(left.wait(), 20)
        return gone.cancel()

    assert asyncio.run(main()) is False


def test_nothing_is_left_of_a_client_that_leaves() -> None:
    """Not even for the collector, which does not see what granian's objects hold."""

    class Left(Protocol):
        def __call__(self) -> Any:
            body = asyncio.get_running_loop().create_future()
            body.set_exception(ProtocolClosed())
            return body

    async def main() -> Any:
        host: Any = SimpleNamespace(
            draining=False, request_metrics=RequestMetrics(), max_body_bytes=10, runner=Runner()
        )
        protocol = Left()
        await handle(Front(None, host=lambda: host), scope("/classify", content_length="9"), protocol)  # type: ignore[arg-type]
        return ref(protocol)

    gc.disable()
    try:
        assert asyncio.run(main())() is None
    finally:
        gc.enable()


def test_who_would_be_late_is_refused_by_granians_thread() -> None:
    class Late:
        judged = ("/classify",)
        knock = staticmethod(lambda *_: 3.0)

    watcher = handed_over(Late, Watcher(Protocol(), scope("/classify", content_length="9")))
    ((status, headers, body),) = watcher.proto.answers
    assert (status, ("retry-after", "3") in headers, b"too late" in body) == (503, True, True)
    assert watcher.task is None


def test_the_wait_for_the_event_loop_counts() -> None:
    """Both when asking who would be late, and from the deadline of who is let in."""
    knocks, seen = [], []

    class Patient:
        judged = ("/classify",)
        limits = Limits()

        @staticmethod
        def begin() -> None: ...

        @staticmethod
        def knock(*visitor: Any) -> Visitor:
            knocks.append(visitor[-2])
            return Visitor("/classify", "", 0.0)

        @staticmethod
        def read(*_: Any) -> None:
            seen.append(deadline())
            raise EkibenError("overloaded", "enough")

        @staticmethod
        def forget(_: Visitor) -> None: ...

    host: Any = SimpleNamespace(draining=False, request_metrics=RequestMetrics(), max_body_bytes=10, runner=Patient)
    asked = scope("/classify", x_request_timeout_ms="5000", content_length="2")

    async def main() -> None:
        door = Door(Front(None, host=lambda: host), asyncio.get_running_loop(), copy_context(), None)  # type: ignore[arg-type]
        for _ in range(2):
            watchers = [Watcher(Protocol(), asked) for _ in range(3)]
            began = time.monotonic()
            for watcher in watchers:
                door(watcher)
            handed_over = time.monotonic()
            time.sleep(0.05)
            while not all(watcher.ended for watcher in watchers):
                await asyncio.sleep(0)
            assert [began + 5 <= end <= handed_over + 5 for end in seen] == [True] * 3
            seen.clear()

    asyncio.run(main())
    assert knocks[:4] == [0.0] * 4
    assert 0 < knocks[4] < knocks[5]


def test_a_long_line_is_told_to_the_engine_though_nobody_was_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    lags: list[float] = []

    class Asked(Runner):
        def knock(self, *visitor: Any) -> Visitor | float:
            lags.append(visitor[-1])
            return super().knock(*visitor)

    async def main() -> None:
        host: Any = SimpleNamespace(draining=False, request_metrics=RequestMetrics(), max_body_bytes=10, runner=Asked())
        door = Door(Front(None, host=lambda: host), asyncio.get_running_loop(), copy_context(), None)  # type: ignore[arg-type]
        for wait_s in (0.0, 0.5):
            monkeypatch.setattr(Line, "look", lambda *_, wait_s=wait_s: wait_s)
            for path in ("/classify", "/livez"):
                watcher = Watcher(Protocol(b"[]"), scope(path, content_length="2"))
                door(watcher)
                while not watcher.ended:
                    await asyncio.sleep(0)
                assert watcher.proto.answers[0][0] != 503

    asyncio.run(main())
    assert lags == [0.5]


def test_an_engine_in_trouble_does_not_end_granians_thread() -> None:
    class Broken:
        judged = 1  # holds nothing

    assert handed_over(Broken, Watcher(Protocol(), scope("/livez", "GET"))).proto.answers[0][0] == 200


def test_granian_hears_of_a_task_that_was_cancelled() -> None:
    class Cancelled:
        is_busy = True
        judged = ()
        limits = Limits()

        @staticmethod
        def begin() -> None: ...

        @staticmethod
        def read(*_: Any) -> None:
            raise asyncio.CancelledError

    watcher = Watcher(Protocol(b"{}"), scope("/classify", content_length="2"))
    (error,) = handed_over(Cancelled, watcher).ended
    assert isinstance(error, asyncio.CancelledError)


def test_what_is_no_route_goes_to_the_application_behind() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend([scope, await receive(), await receive()])
        await send({"type": "http.response.start", "status": 201, "headers": [(b"x", b"y"), (b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    (answer,) = answered(app, Protocol(b"in", b"put"), scope("/é", accept="*/*")).answers
    assert answer == (201, [("x", "y")], b"ok")
    asked, body, gone = seen
    assert (asked["path"], asked["query_string"], asked["headers"]) == ("/é", b"a=%20b", [(b"accept", b"*/*")])
    assert (asked["client"], asked["server"]) == (("127.0.0.1", 5), ("127.0.0.1", 3000))
    assert body == {"type": "http.request", "body": b"input", "more_body": False}
    assert gone == {"type": "http.disconnect"}


def test_what_the_application_streams_is_streamed() -> None:
    async def app(_: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for part in (b"a", b"", b"b"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body"})

    protocol = answered(app, Protocol(), scope("/x"))
    assert protocol.answers == [(200, [], b"")]
    assert protocol.streamed == [b"a", b"b"]
