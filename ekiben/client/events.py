"""Server-sent events of a stream of text, from the bytes as they come."""

import json
from collections.abc import Iterator

from ekiben.client.attempts import Deadline
from ekiben.client.errors import ConnectionFailedError, problem_error
from ekiben.client.values import StreamEnd, TextEvent


class EventReader:
    """Turns bytes into events; `is_ended` after the terminal one."""

    def __init__(self, request_id: str | None) -> None:
        self.is_ended = False
        self._request_id = request_id
        self._rest = b""

    def read(self, content: bytes) -> Iterator[TextEvent | StreamEnd]:
        """Yield the events that these bytes complete; raises the error that the service sends as an event."""
        *blocks, self._rest = (self._rest + content).split(b"\n\n")
        for block in blocks:
            fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if b": " in line)
            if b"data" not in fields:
                continue
            name, document = fields.get(b"event"), json.loads(fields[b"data"])
            if name == b"error":
                self.is_ended = True
                raise problem_error(int(document.get("status", 500)), document, self._request_id)
            if name == b"end":
                self.is_ended = True
                yield StreamEnd(
                    model=document["model"],
                    version=document["version"],
                    seed=document["seed"],
                    completions=document["completions"],
                )
            else:
                yield TextEvent(
                    index=document["index"],
                    text=document["text"],
                    logprobs=document.get("logprobs"),
                    finish_reason=document.get("finish_reason"),
                    tokens=document.get("tokens"),
                )

    def check(self, deadline: Deadline) -> None:
        """Raise DeadlineError if the stream goes on beyond the deadline."""
        if not self.is_ended:
            deadline.check()

    def check_end(self) -> None:
        """Raise ConnectionFailedError if the terminal event has not come."""
        if not self.is_ended:
            raise ConnectionFailedError("the stream ended without its last event")
