"""A stream to a client that does not read waits, and goes on when the client reads."""

import asyncio
import socket
from typing import Any

import pytest
from granian.rsgi import ProtocolClosed

from service.http.granian.send_queue import WINDOW_BYTES, PacedTransport
from service.http.wire.messages import ClientDisconnectedError

PART = b"x" * 8192
NUM_PARTS = 4 * WINDOW_BYTES // len(PART)


class Unbounded:
    """Accepts any number of bytes, as granian does."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.num_bytes = 0
        self._writer = writer

    async def send_bytes(self, data: bytes) -> None:
        self.num_bytes += len(data)
        self._writer.write(data)


def address(endpoint: Any) -> str:
    return f"[{endpoint[0]}]:{endpoint[1]}" if ":" in endpoint[0] else f"{endpoint[0]}:{endpoint[1]}"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_a_stream_waits_for_its_client(host: str) -> None:
    async def main() -> None:
        accepted: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        listener.bind((host, 0))
        server = await asyncio.start_server(lambda _, writer: accepted.put_nowait(writer), sock=listener)
        client = socket.socket(family)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(listener.getsockname()[:2])
        client.setblocking(False)
        writer = await accepted.get()
        unbounded = Unbounded(writer)
        paced = PacedTransport(
            unbounded, server=address(writer.get_extra_info("sockname")), client=address(client.getsockname())
        )

        async def send() -> None:
            for _ in range(NUM_PARTS):
                await paced.send_part(PART)

        sending = asyncio.create_task(send())
        while unbounded.num_bytes < WINDOW_BYTES:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        assert unbounded.num_bytes == WINDOW_BYTES, "nobody reads"
        left = NUM_PARTS * len(PART)
        while left:
            left -= len(await asyncio.get_running_loop().sock_recv(client, 1 << 20))
        await sending
        client.close()
        writer.close()
        server.close()

    try:
        asyncio.run(asyncio.wait_for(main(), 60))
    except OSError as error:
        pytest.skip(f"no {host} here: {error}")


def test_a_closed_transport_is_a_disconnected_client() -> None:
    class Closed:
        async def send_bytes(self, data: bytes) -> None:
            raise ProtocolClosed

    paced = PacedTransport(Closed(), server="127.0.0.1:1", client="127.0.0.1:2")
    with pytest.raises(ClientDisconnectedError):
        asyncio.run(paced.send_part(b"x"))
