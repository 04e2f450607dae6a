"""A body is read once, whole, and never beyond its limit."""

import asyncio
from typing import Any

import pytest

from service.errors import EkibenError
from service.http.wire.asgi import AsgiRequest, respond
from service.http.wire.messages import UNREADABLE, ClientGoneError, Reply


def read(*messages: dict[str, Any], limit: int = 10, length: bytes | None = None) -> bytes:
    waiting = iter(messages)

    async def receive() -> Any:
        return next(waiting)

    return asyncio.run(request(receive, *[(b"content-length", length)] if length else []).body(limit))


def request(receive: Any = None, *headers: tuple[bytes, bytes]) -> AsgiRequest:
    scope = {"type": "http", "method": "POST", "path": "/x", "query_string": b"a=%20b", "headers": headers}
    return AsgiRequest(scope, receive)


def part(body: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def test_a_body_is_read_whole() -> None:
    assert read(part(b"0123456789"), length=b"10") == b"0123456789"
    assert read(part(b"01", more=True), part(b"", more=True), part(b"23")) == b"0123"
    assert read({"type": "http.request"}) == b""


@pytest.mark.parametrize(
    ("messages", "length"),
    [
        ([], b"11"),  # refused before a byte is read
        ([part(b"x" * 11)], None),
        ([part(b"x" * 6, more=True), part(b"x" * 5, more=True)], None),
    ],
)
def test_a_body_beyond_the_limit_is_refused(messages: list[dict[str, Any]], length: bytes | None) -> None:
    with pytest.raises(EkibenError, match="expected a body of at most 10 bytes, got") as caught:
        read(*messages, length=length)
    assert caught.value.slug == "body-too-large"


def test_a_client_that_leaves_is_noticed() -> None:
    with pytest.raises(ClientGoneError):
        read(part(b"x", more=True), {"type": "http.disconnect"})
    with pytest.raises(ClientGoneError):
        read({"type": "http.disconnect"})

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def notice() -> None:
        await asyncio.wait_for(request(receive).gone(), 5)

    asyncio.run(notice())


def test_headers_and_query() -> None:
    asked = request(None, (b"accept", b"image/png"))
    assert asked.header("accept") == "image/png"
    assert asked.header("x-other") == ""
    assert asked.query == "a=%20b"


def test_of_a_header_that_is_there_twice_the_first_counts_without_the_blanks_around_it() -> None:
    asked = request(None, (b"a", b"\t 1 \t"), (b"a", b"2"), (b"b", b"\xff1"), (b"b", b"2"), (b"c", b""))
    assert [asked.header(name) for name in "abc"] == ["1", UNREADABLE, ""]


@pytest.mark.parametrize("with_body", [True, False])
def test_an_answer_is_two_messages(with_body: bool) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(respond(send, Reply("text/plain", b"no", [("allow", "GET")], 405), with_body=with_body))
    assert sent[0]["status"] == 405
    assert sent[0]["headers"] == [(b"content-type", b"text/plain"), (b"content-length", b"2"), (b"allow", b"GET")]
    assert sent[1]["body"] == (b"no" if with_body else b"")
