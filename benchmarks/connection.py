"""One HTTP/1.1 connection that is kept open, for load that has to know exactly which request failed and how.

`ask` raises OSError or EOFError when the connection fails before the whole answer is there: then that request, and no
other, was lost.
"""

import asyncio
from collections.abc import Mapping
from typing import NamedTuple, Self


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes


class Connection:
    """Not to be shared: one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> Self:
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 20))

    async def ask(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        self.send(method, path, headers, length=len(body), body=body)
        return await self.answer()

    def send(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, *, length: int = 0, body: bytes = b""
    ) -> None:
        """A head that announces `length` bytes of body, and as much of the body as is given."""
        lines = [f"{name}: {value}\r\n" for name, value in (headers or {}).items()]
        head = f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n{''.join(lines)}\r\n"
        self._writer.write(head.encode() + body)

    def send_chunked(self, method: str, path: str, headers: Mapping[str, str]) -> None:
        """A head whose body comes in chunks, which the caller frames."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._writer.write(f"{method} {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n{lines}\r\n".encode())

    async def write(self, more: bytes) -> None:
        """More of the body."""
        self._writer.write(more)
        await self._writer.drain()

    async def answer(self) -> Answer:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])}
        body = await self._reader.readexactly(int(headers.get("content-length", 0)))
        return Answer(int(head[0].split()[1]), headers, body)

    def close(self) -> None:
        """At once, whatever is still under way: the other side sees the client leave."""
        self._writer.transport.abort()
