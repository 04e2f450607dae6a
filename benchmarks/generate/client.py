"""Clients of a language model over HTTP: whole answers of POST /generate, and streams of POST /generate/stream."""

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

from benchmarks.connection import Connection

JSON = {"content-type": "application/json"}


@dataclass
class Stream:
    """What one stream has received: its events, and the times of their arrival on the clock of `time.perf_counter`."""

    events: list[dict[str, Any]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    began: float = field(default_factory=time.perf_counter)

    @property
    def first_token_s(self) -> float:
        return self.times[0] - self.began


async def post(connection: Connection, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return the body of a 200; raises RuntimeError for any other status."""
    response = await connection.request("POST", path, json.dumps(body).encode(), JSON)
    if response.status != 200:
        raise RuntimeError(f"{path}: {response.status} {response.body[:300]!r}")
    answer: dict[str, Any] = json.loads(response.body)
    return answer


async def read_stream(port: int, body: dict[str, Any]) -> Stream:
    """Send a request to POST /generate/stream on a connection of its own and read all events."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    content = json.dumps(body).encode()
    head = (
        f"POST /generate/stream HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(content)}"
    )
    stream = Stream()
    writer.write(f"{head}\r\nconnection: close\r\n\r\n".encode() + content)
    try:
        status = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1]
        if status != b"200":
            raise RuntimeError(f"{status!r} {await reader.read(300)!r}")
        while line := await reader.readline():
            if line.startswith(b"data:"):
                stream.events.append(json.loads(line[5:]))
                stream.times.append(time.perf_counter())
    finally:
        writer.close()
    return stream
