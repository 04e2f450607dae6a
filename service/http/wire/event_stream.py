"""Server-sent events: the body of a streamed response, one JSON document an event."""

from collections.abc import AsyncGenerator, Callable
from typing import Any

import orjson

from service.errors import EkibenError
from service.http.wire.messages import StreamedResponse

EVENT_STREAM = "text/event-stream"
# Neither caches nor proxies may hold events back.
HEADERS = [("cache-control", "no-cache"), ("x-accel-buffering", "no")]


def event_stream(
    events: AsyncGenerator[bytes, None],
    error_event: Callable[[EkibenError], bytes],
    headers: list[tuple[str, str]] | None = None,
) -> StreamedResponse:
    """Return the response that sends the events; `error_event` makes the last one of a stream that fails."""
    return StreamedResponse(EVENT_STREAM, events, error_event, [*HEADERS, *(headers or [])])


def write_event(document: Any, name: str = "") -> bytes:
    """Return one event, of the default type without a name."""
    data = b"data: %s\n\n" % orjson.dumps(document)
    return b"event: %s\n%s" % (name.encode(), data) if name else data
