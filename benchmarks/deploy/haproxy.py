"""A real haproxy in front of replicas on this machine, steered over its socket as an ingress controller does."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.e2e.serving import ends_with_parent

BACKEND = "replicas"
CHECK_INTERVAL_MS, CHECK_FALL = 500, 3
# Nothing hides a failure: a request is sent to one replica, once.
STRICT = "retries 0"
# A request that a replica refuses because it ends is sent to another one. Bodies have to fit into the buffer.
RETRIED = "\n    ".join(
    (
        "retries 2",
        "option redispatch 1",
        "option http-buffer-request",
        "retry-on 503 conn-failure empty-response",
    )
)
CONFIGURATION = """
global
    stats socket {socket} mode 600 level admin
    tune.bufsize 65536
defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 60s
    timeout check 2s
    option http-keep-alive
frontend clients
    bind 127.0.0.1:{port}
    default_backend {backend}
backend {backend}
    balance roundrobin
    http-reuse safe
    {retries}
    option httpchk GET /readyz
    default-server check inter {inter}ms fall {fall} rise 1
{servers}
"""


@dataclass(frozen=True, kw_only=True)
class Proxy:
    port: int
    socket: Path

    def set_state(self, server: str, state: Literal["ready", "drain"]) -> None:
        """Send new requests to this server, or none any more."""
        self._ask(f"set server {BACKEND}/{server} state {state}")

    def is_up(self, server: str) -> bool:
        """Has the proxy seen this server ready, and does it send requests to it?"""
        # https://docs.haproxy.org/2.6/management.html#9.3-show%20servers%20state: operational state 2 is running.
        lines = [line.split() for line in self._ask(f"show servers state {BACKEND}").splitlines()]
        [row] = [row for row in lines if len(row) > 6 and row[3] == server]
        return row[5:7] == ["2", "0"]

    def _ask(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(self.socket))
            connection.sendall(f"{command}\n".encode())
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()


@contextmanager
def proxy(
    port: int, servers: Sequence[tuple[str, int]], *, retries: str = STRICT, check_ms: int = CHECK_INTERVAL_MS
) -> Iterator[Proxy]:
    """Run haproxy in front of these (name, port) until the block ends."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    binary = shutil.which("haproxy", path=path)
    if binary is None:
        sys.exit("haproxy is not installed: apt-get install haproxy")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = "\n".join(f"    server {server} 127.0.0.1:{at}" for server, at in servers)
        configuration = CONFIGURATION.format(
            socket=folder / "socket",
            port=port,
            backend=BACKEND,
            retries=retries,
            inter=check_ms,
            fall=CHECK_FALL,
            servers=lines,
        )
        (folder / "haproxy.cfg").write_text(configuration)
        process = subprocess.Popen(ends_with_parent([binary, "-q", "-db", "-f", str(folder / "haproxy.cfg")]))
        try:
            _wait_for_port(port, process)
            yield Proxy(port=port, socket=folder / "socket")
        finally:
            process.terminate()
            process.wait()


def _wait_for_port(port: int, process: subprocess.Popen[bytes], timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if process.poll() is not None:
            sys.exit(f"haproxy exited with {process.returncode}")
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    sys.exit(f"haproxy did not open port {port} within {timeout_s:.0f} s")
