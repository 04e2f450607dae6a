"""The proxy of the rolling update sends requests to ready servers only, and to none that is drained."""

import shutil
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks.deploy.haproxy import RETRIED, STRICT, Proxy, proxy
from tests.e2e.serving import free_port
from tests.service.hosts import ask, wait_until

needs_haproxy = pytest.mark.skipif(
    shutil.which("haproxy", path="/usr/sbin:/usr/bin") is None, reason="haproxy is not installed"
)


class Handler(BaseHTTPRequestHandler):
    """Answers with its port; /readyz is 200."""

    def do_GET(self) -> None:
        body = str(self.server.server_address[1]).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def ports() -> Iterator[list[int]]:
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), Handler) for _ in range(2)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield [server.server_address[1] for server in servers]
    for server in servers:
        server.shutdown()
        server.server_close()


def answering(behind: Proxy) -> set[int]:
    return {int(ask(behind.port, "GET", "/")[2]) for _ in range(8)}


@needs_haproxy
@pytest.mark.parametrize("retries", [STRICT, RETRIED], ids=["strict", "retried"])
def test_a_drained_server_gets_no_requests(ports: list[int], retries: str) -> None:
    servers = list(zip(("first", "second"), ports, strict=True))
    with proxy(free_port(), servers, retries=retries) as behind:
        wait_until(lambda: behind.is_up("first") and behind.is_up("second"))
        assert answering(behind) == set(ports)
        behind.set_state("first", "drain")
        assert not behind.is_up("first")
        assert answering(behind) == {ports[1]}
        behind.set_state("first", "ready")
        wait_until(lambda: behind.is_up("first"))
        assert answering(behind) == set(ports)


@needs_haproxy
def test_a_server_without_a_process_is_not_up(ports: list[int]) -> None:
    with proxy(free_port(), [("first", ports[0]), ("second", free_port())]) as behind:
        wait_until(lambda: not behind.is_up("second"))
        time.sleep(0.5)
        assert answering(behind) == {ports[0]}
