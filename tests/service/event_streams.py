"""Reads server-sent events."""

import json
from typing import Any


def read_events(body: bytes | str) -> list[tuple[str, Any]]:
    """The events of a whole stream: the type, "" for the default, and the document, or the text `[DONE]`."""
    text = body.decode() if isinstance(body, bytes) else body
    assert text.endswith("\n\n")
    events = []
    for block in text[:-2].split("\n\n"):
        *names, data = block.split("\n")
        assert data.startswith("data: ")
        content = data.removeprefix("data: ")
        name = names[0].removeprefix("event: ") if names else ""
        events.append((name, content if content == "[DONE]" else json.loads(content)))
    return events
