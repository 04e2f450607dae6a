"""One HTTP/1.1 keep-alive connection, for load that has to know which request failed, and how.

A connection that fails before the whole response has arrived raises OSError or EOFError: exactly that request is lost.
"""

import asyncio
from collections.abc import Mapping
from typing import NamedTuple, Self


class Response(NamedTuple):
    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes


class Connection:
    """Carries one request at a time, so tasks must not share it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> Self:
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 20))

    async def request(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Response:
        self.send(method, path, headers, length=len(body), body=body)
        return await self.read_response()

    def send(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, *, length: int = 0, body: bytes = b""
    ) -> None:
        """Send a head that declares `length` bytes of body, and `body`, which may be shorter."""
        lines = [f"{name}: {value}\r\n" for name, value in (headers or {}).items()]
        head = f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n{''.join(lines)}\r\n"
        self._writer.write(head.encode() + body)

    def send_chunked(self, method: str, path: str, headers: Mapping[str, str]) -> None:
        """Send the head of a chunked request; the caller writes the chunks with their framing."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._writer.write(f"{method} {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n{lines}\r\n".encode())

    async def write(self, content: bytes) -> None:
        """Send more bytes of the body."""
        self._writer.write(content)
        await self._writer.drain()

    async def read_response(self) -> Response:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])}
        body = await self._reader.readexactly(int(headers.get("content-length", 0)))
        return Response(int(head[0].split()[1]), headers, body)

    def close(self) -> None:
        """Abort the connection, even in the middle of a request: the server sees the client disconnect."""
        self._writer.transport.abort()
