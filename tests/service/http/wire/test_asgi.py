"""ASGI requests and responses."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from service.errors import EkibenError
from service.http.wire.asgi import AsgiRequest, send_response
from service.http.wire.messages import UNREADABLE, ClientDisconnectedError, Response, StreamedResponse


def read(*messages: dict[str, Any], limit: int = 10, length: bytes | None = None) -> bytes:
    pending = iter(messages)

    async def receive() -> Any:
        return next(pending)

    return asyncio.run(request(receive, *[(b"content-length", length)] if length else []).body(limit, lambda *_: None))


def request(receive: Any = None, *headers: tuple[bytes, bytes], send: Any = None) -> AsgiRequest:
    scope = {"type": "http", "method": "POST", "path": "/x", "query_string": b"a=%20b", "headers": headers}
    return AsgiRequest(scope, receive, send)


def part(body: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def test_body_returns_all_parts() -> None:
    assert read(part(b"0123456789"), length=b"10") == b"0123456789"
    assert read(part(b"01", more=True), part(b"", more=True), part(b"23")) == b"0123"
    assert read({"type": "http.request"}) == b""


@pytest.mark.parametrize(
    ("messages", "length"),
    [
        # Refused before any message is received.
        ([], b"11"),
        ([part(b"x" * 11)], None),
        ([part(b"x" * 6, more=True), part(b"x" * 5, more=True)], None),
    ],
)
def test_body_beyond_the_limit_is_refused(messages: list[dict[str, Any]], length: bytes | None) -> None:
    with pytest.raises(EkibenError, match="expected a body of at most 10 bytes, got") as caught:
        read(*messages, length=length)
    assert caught.value.slug == "body-too-large"


def test_disconnect_during_the_body_raises() -> None:
    with pytest.raises(ClientDisconnectedError):
        read(part(b"x", more=True), {"type": "http.disconnect"})
    with pytest.raises(ClientDisconnectedError):
        read({"type": "http.disconnect"})


def test_disconnected_resolves_when_the_client_disconnects() -> None:
    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def wait() -> None:
        await asyncio.wait_for(request(receive).disconnected(), 5)

    asyncio.run(wait())


def test_headers_and_query_are_read() -> None:
    with_accept = request(None, (b"accept", b"image/png"))
    assert with_accept.header("accept") == "image/png"
    assert with_accept.header("x-other") == ""
    assert with_accept.query == "a=%20b"


def test_the_first_of_duplicate_headers_is_returned_without_surrounding_whitespace() -> None:
    duplicates = request(None, (b"a", b"\t 1 \t"), (b"a", b"2"), (b"b", b"\xff1"), (b"b", b"2"), (b"c", b""))
    assert [duplicates.header(name) for name in "abc"] == ["1", UNREADABLE, ""]


@pytest.mark.parametrize("with_body", [True, False])
def test_a_response_is_sent_as_two_messages(with_body: bool) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(send_response(send, Response("text/plain", b"no", [("allow", "GET")], 405), with_body=with_body))
    assert sent[0]["status"] == 405
    assert sent[0]["headers"] == [(b"content-type", b"text/plain"), (b"content-length", b"2"), (b"allow", b"GET")]
    assert sent[1]["body"] == (b"no" if with_body else b"")


def test_a_stream_is_sent_in_parts() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def no_parts() -> AsyncGenerator[bytes, None]:
        yield b""

    async def main() -> None:
        streamed = request(None, (b"x-request-id", b"a-1"), send=send)
        send_part = await streamed.start_stream(
            StreamedResponse("text/event-stream", no_parts(), lambda _: b"", [("x-seed", "1")])
        )
        await send_part(b"a")
        await streamed.end_stream()

    asyncio.run(main())
    start, *bodies = sent
    headers = [(b"content-type", b"text/event-stream"), (b"x-seed", b"1"), (b"x-request-id", b"a-1")]
    assert (start["status"], start["headers"]) == (200, headers)
    assert [(message["body"], message.get("more_body", False)) for message in bodies] == [(b"a", True), (b"", False)]
