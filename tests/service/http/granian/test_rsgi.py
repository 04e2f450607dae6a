"""granian's requests become our requests, and responses of an ASGI application become granian's."""

import asyncio
import gc
from collections.abc import AsyncGenerator, Iterator
from typing import Any
from weakref import ref

import pytest
from granian.rsgi import ProtocolClosed

from service.errors import EkibenError
from service.http.granian import rsgi
from service.http.granian.rsgi import RsgiRequest, answer
from service.http.route import InferenceRoute
from service.http.router import Router
from service.http.wire.messages import UNREADABLE, ClientDisconnectedError, StreamedResponse
from tests.service.http.granian.fakes import Protocol, scope, state_with


def read(*parts: bytes | None, **headers: str) -> bytes:
    return asyncio.run(RsgiRequest(scope(**headers), Protocol(*parts)).body(10, lambda *_: None))  # type: ignore[arg-type]


def test_a_body_is_read_whole_with_or_without_a_declared_length() -> None:
    assert read(b"01", b"23", content_length="4") == b"0123"
    assert read(b"01", b"", b"23") == b"0123"
    assert read() == b""


@pytest.mark.parametrize(("parts", "headers"), [((), {"content_length": "11"}), ((b"x" * 6, b"x" * 5), {})])
def test_a_body_beyond_the_limit_is_refused(parts: tuple[bytes, ...], headers: dict[str, str]) -> None:
    with pytest.raises(EkibenError, match="at most 10 bytes") as caught:
        read(*parts, **headers)
    assert caught.value.slug == "body-too-large"


@pytest.mark.parametrize("headers", [{"content_length": "9"}, {}])
def test_a_disconnect_while_reading_is_noticed(headers: dict[str, str]) -> None:
    with pytest.raises(ClientDisconnectedError):
        read(b"x", None, **headers)


def test_headers_query_and_client_are_granians() -> None:
    request = RsgiRequest(scope(accept="image/png"), Protocol())  # type: ignore[arg-type]
    assert (request.client, request.query) == ("127.0.0.1:5", "a=%20b")
    assert (request.header("accept"), request.header("x-other")) == ("image/png", "")


def test_a_header_value_that_granian_cannot_decode_is_unreadable() -> None:
    """granian returns None for a value that is not ASCII; that is not the same as a header that is absent."""
    request = RsgiRequest(scope(x_request_timeout_ms=None), Protocol())  # type: ignore[arg-type]
    assert request.header("x-request-timeout-ms") == UNREADABLE


def respond(app: Any, protocol: Protocol, asked: Any) -> Protocol:
    state = state_with()
    asyncio.run(answer(Router(app, state=lambda: state), asked, protocol))  # type: ignore[arg-type]
    return protocol


def test_a_route_is_answered() -> None:
    (answer,) = respond(None, Protocol(), scope("/livez", "GET", x_request_id="a-1")).responses
    assert answer == (200, [("content-type", "application/json"), ("x-request-id", "a-1")], b'{"live":true}')


@pytest.mark.parametrize("headers", [{"content_length": "9"}, {"transfer_encoding": "chunked"}])
def test_a_body_that_breaks_off_is_answered_in_case_its_client_still_reads(headers: dict[str, str]) -> None:
    """Without a response granian would send an empty 500."""
    ((status, _, body),) = respond(None, Protocol(b"{", None), scope("/classify", **headers)).responses
    assert (status, b"malformed-message" in body) == (400, True)


def test_a_part_that_granian_cannot_read_is_not_the_end_of_the_body() -> None:
    """granian gives an empty part for it, and then the empty part that ends every body."""
    assert read(b"{}", b"", transfer_encoding="chunked") == b"{}"
    with pytest.raises(ClientDisconnectedError):
        read(b"{}", b"", b"", transfer_encoding="chunked")


def test_a_client_that_has_disconnected_already_is_reported_at_once() -> None:
    """granian returns an object then that can be awaited and nothing else."""

    class Empty:
        def __await__(self) -> Iterator[None]:
            yield from ()

    class Leaving(Protocol):
        def client_disconnect(self) -> Any:
            return Empty()

    async def main() -> bool:
        left = asyncio.Event()
        disconnected = RsgiRequest(scope(), Leaving()).disconnected()  # type: ignore[arg-type]
        disconnected.add_done_callback(lambda _: left.set())
        await asyncio.wait_for(left.wait(), 20)
        return disconnected.cancel()

    assert asyncio.run(main()) is False


def test_a_disconnected_client_leaves_no_memory() -> None:
    """The collector could not free it: it does not see what granian's objects hold."""

    class Leaving(Protocol):
        def __call__(self) -> Any:
            body = asyncio.get_running_loop().create_future()
            body.set_exception(ProtocolClosed())
            return body

    async def main() -> Any:
        state = state_with()
        protocol = Leaving()
        await answer(Router(None, state=lambda: state), scope("/classify", content_length="9"), protocol)  # type: ignore[arg-type]
        return ref(protocol)

    gc.disable()
    try:
        assert asyncio.run(main())() is None
    finally:
        gc.enable()


def test_the_path_of_the_framework_goes_to_the_application_behind_the_router() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend([scope, await receive(), await receive()])
        await send({"type": "http.response.start", "status": 201, "headers": [(b"x", b"y"), (b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    (answer,) = respond(app, Protocol(b"in", b"put"), scope("/schema.json", x_request_id="a-1")).responses
    assert answer == (201, [("x", "y"), ("x-request-id", "a-1")], b"ok")
    asked, body, disconnect = seen
    headers = [(b"host", b"x"), (b"x-request-id", b"a-1")]
    assert (asked["path"], asked["query_string"], asked["headers"]) == ("/schema.json", b"a=%20b", headers)
    assert (asked["client"], asked["server"]) == (("127.0.0.1", 5), ("127.0.0.1", 3000))
    assert body == {"type": "http.request", "body": b"input", "more_body": False}
    assert disconnect == {"type": "http.disconnect"}


def test_streamed_responses_are_streamed() -> None:
    async def app(_: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for part in (b"a", b"", b"b"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body"})

    protocol = respond(app, Protocol(), scope("/schema.json", x_request_id="a-1"))
    assert protocol.responses == [(200, [("x-request-id", "a-1")], b"")]
    assert protocol.streamed == [b"a", b"b"]


@pytest.mark.parametrize("fails", [False, True])
def test_a_stream_ends_with_its_request(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """granian ends the body when its transport is freed, which an error must not delay until a collection."""

    class Transport:
        async def send_bytes(self, part: bytes) -> None:
            parts.append(part)

    class Streaming(Protocol):
        def response_stream(self, status: int, headers: list[tuple[str, str]]) -> Any:
            transport = Transport()
            transports.append(ref(transport))
            return transport

    async def events() -> AsyncGenerator[bytes, None]:
        yield b"a"
        if fails:
            raise timeout

    async def handle(*_: Any) -> StreamedResponse:
        return StreamedResponse("text/event-stream", events(), lambda error: error.slug.encode())

    async def main() -> None:
        state = state_with()
        protocol = Streaming(b"{}")
        await answer(Router(None, state=lambda: state), scope("/x", content_length="2"), protocol)  # type: ignore[arg-type]

    timeout = EkibenError("timeout", "too late")
    parts: list[bytes] = []
    transports: list[Any] = []
    route = InferenceRoute(name="/x", handle=handle)
    monkeypatch.setattr(rsgi, "find_route", lambda _: route)
    gc.disable()
    try:
        asyncio.run(main())
        assert [transport() for transport in transports] == [None]
    finally:
        gc.enable()
    assert parts == ([b"a", b"timeout"] if fails else [b"a"])
