"""Streams wait for slow clients: granian itself accepts any number of bytes and keeps what the client has not read.

Invariant: of one stream at most WINDOW_BYTES and one part wait in this process, beside the kernel's buffers. After each
window the stream waits until the kernel has sent all that it holds for the connection: then granian's queue is empty.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Protocol

from granian.rsgi import ProtocolClosed  # type: ignore[attr-defined]  # re-exported, not listed

from service.http.wire.messages import ClientDisconnectedError

WINDOW_BYTES = 1 << 18
POLL_S = 0.05
TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
Connection = tuple[str, str]  # the port of this end and the address of the other, as the kernel's tables write them


class Transport(Protocol):
    async def send_bytes(self, data: bytes) -> Any:
        """Accept the bytes for sending. Raises ProtocolClosed."""


class PacedTransport:
    """The transport of one response; `server` and `client` are the addresses of its connection, as HOST:PORT."""

    def __init__(self, transport: Transport, *, server: str, client: str) -> None:
        self._transport: Transport | None = transport
        self._connection = _to_hex(server).rpartition(":")[2], _to_hex(client)
        self._left = WINDOW_BYTES

    async def send_part(self, part: bytes) -> None:
        """Send the part once the client has read what was sent before. Raises ClientDisconnectedError."""
        while self._left <= 0:
            await asyncio.sleep(POLL_S)
            if not unsent_bytes(int(time.monotonic() / POLL_S)).get(self._connection):
                self._left = WINDOW_BYTES
        self._left -= len(part)
        assert self._transport is not None, "the body has not ended"
        try:
            await self._transport.send_bytes(part)
        except ProtocolClosed:
            raise ClientDisconnectedError from None

    def end(self) -> None:
        """End the body: granian does so with the last reference to its transport.

        Another one may be in the frames of an error that ended the stream.
        """
        self._transport = None


@lru_cache(1)
def unsent_bytes(_tick: int) -> Mapping[Connection, int]:
    """Return the bytes that the kernel holds for each connection until its peer has received them; read once a tick."""
    return {connection: size for table in TABLES if table.exists() for connection, size in _read(table) if size}


def _read(table: Path) -> Iterator[tuple[Connection, int]]:
    for line in table.read_text().splitlines()[1:]:
        _, local, remote, _, queues, _ = line.split(maxsplit=5)
        # An IPv4 address that IPv6 maps counts as that address.
        remote = remote.removeprefix("0000000000000000FFFF0000")
        yield (local.rpartition(":")[2], remote), int(queues.partition(":")[0], 16)


def _to_hex(address: str) -> str:
    host, _, port = address.rpartition(":")
    parsed = ip_address(host.strip("[]"))
    packed = (getattr(parsed, "ipv4_mapped", None) or parsed).packed
    words = (packed[i : i + 4][::-1].hex().upper() for i in range(0, len(packed), 4))
    return f"{''.join(words)}:{int(port):04X}"
