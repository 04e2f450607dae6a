"""Both hosts over one tiny bundle of each family, and a server that fails as it is told."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.serving import SERVE
from tests.service.conftest import served_bundles
from tests.service.hosts import GRANIAN, running_server

__all__ = ["served_bundles"]


@pytest.fixture(scope="session", params=[GRANIAN, SERVE], ids=["granian", "bentoml"])
def url(
    request: pytest.FixtureRequest, served_bundles: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    with running_server(request.param, served_bundles, folder) as server:
        yield server.address


class FailingServer:
    """Answers request i of all connections with bytes i of a list, in parts with pauses; b"" closes the connection."""

    def __init__(self, listener: socket.socket) -> None:
        self.answers: list[list[bytes | float]] = []
        self.requests: list[tuple[int, bytes]] = []  # number of the connection, and the whole request
        self.is_stopped = False
        self._listener = listener
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def serve(self) -> None:
        number = 0
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._answer, args=(connection, number), daemon=True).start()
                number += 1

    def _answer(self, connection: socket.socket, number: int) -> None:
        with connection, contextlib.suppress(OSError):
            while request := self._read(connection):
                with self._lock:
                    self.requests.append((number, request))
                    parts = self.answers.pop(0)
                for part in parts:
                    if isinstance(part, float):
                        threading.Event().wait(part)
                    elif part:
                        connection.sendall(part)
                    else:
                        return

    @staticmethod
    def _read(connection: socket.socket) -> bytes:
        content = b""
        while b"\r\n\r\n" not in content:
            received = connection.recv(65536)
            if not received:
                return b""
            content += received
        head, _, body = content.partition(b"\r\n\r\n")
        lengths = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        while len(body) < (lengths or [0])[0]:
            body += connection.recv(65536)
        return head + b"\r\n\r\n" + body


def answer(status: int, body: bytes = b"{}", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}", "content-type: application/json", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@pytest.fixture
def failing() -> Iterator[FailingServer]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = FailingServer(listener)
        threading.Thread(target=server.serve, daemon=True).start()
        yield server
        listener.shutdown(socket.SHUT_RDWR)


Answer = Callable[..., bytes]
