"""Server-sent events."""

from collections.abc import AsyncGenerator

from service.http.wire.event_stream import event_stream, write_event


def test_an_event_is_one_document_of_one_line() -> None:
    assert write_event({"text": "a\n\0é"}) == 'data: {"text":"a\\n\\u0000é"}\n\n'.encode()
    assert write_event([1], "end") == b"event: end\ndata: [1]\n\n"


def test_nothing_may_hold_events_back() -> None:
    async def no_events() -> AsyncGenerator[bytes, None]:
        yield b""

    response = event_stream(no_events(), lambda _: b"", [("x-seed", "1")])
    assert response.content_type == "text/event-stream"
    assert dict(response.headers) == {"cache-control": "no-cache", "x-accel-buffering": "no", "x-seed": "1"}
