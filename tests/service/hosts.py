"""Real servers on both hosts, and requests to them."""

import contextlib
import http.client
import json
import socket
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from service.http.telemetry.multiprocess import PUBLISH_INTERVAL_S
from tests.e2e.serving import ROOT, ServerProcess, environment, start
from tests.service.requests import request_body

GRANIAN = (sys.executable, "-m", "service")
JSON = {"content-type": "application/json"}
IMAGES = json.dumps(request_body("image-classifier"))
Answer = tuple[int, dict[str, str], bytes]


def ask(port: int, method: str, path: str, content: str | bytes = b"", **headers: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, content, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


def classify(port: int) -> Answer:
    return ask(port, "POST", "/classify", IMAGES, content_type="application/json")


@contextlib.contextmanager
def running_server(command: tuple[str, ...], bundles: Path, folder: Path, **settings: str) -> Iterator[ServerProcess]:
    env = environment(EKIBEN_BUNDLES=str(bundles), BENTOML_HOME=str(folder), **settings)
    with start(command, env=env, cwd=ROOT, log=folder / "log") as started:
        if "--workers" in command:
            wait_until(partial(all_are_ready, started.port))
        yield started


def all_are_ready(port: int) -> bool:
    """Whether all workers are ready, each of which answers some new connections."""
    return {ask(port, "GET", "/readyz")[0] for _ in range(10)} == {200}


def counted(host: ServerProcess, name: str) -> float:
    status, headers, text = ask(host.port, "GET", "/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    return sum(float(line.rpartition(" ")[2]) for line in text.decode().splitlines() if line.startswith(name))


def published_count(host: ServerProcess, name: str) -> float:
    """Count what was counted before this call: the figures of other workers are up to a publication old."""
    time.sleep(2 * PUBLISH_INTERVAL_S)
    return counted(host, name)


def counted_or_nothing(host: ServerProcess) -> float:
    try:
        return counted(host, "ekiben_ready_workers")
    except (OSError, http.client.HTTPException):
        return -1


def half_a_request(port: int) -> socket.socket:
    """Send a head and ten bytes of a body."""
    return send(port, "/classify", len(IMAGES), IMAGES[:10].encode())


def under_way(host: ServerProcess) -> socket.socket:
    """Send half a request, and wait until the service has admitted it."""
    client = half_a_request(host.port)
    wait_until(lambda: counted(host, "ekiben_http_in_flight") == 1)
    return client


def finished(client: socket.socket) -> tuple[int, bytes]:
    """Send the rest of the body; return status and body of the answer."""
    with client:
        client.sendall(IMAGES[10:].encode())
        answer = http.client.HTTPResponse(client)
        answer.begin()
        return answer.status, answer.read()


def send(port: int, path: str, length: int, content: bytes) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=30)
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    client.sendall(head.encode() + content)
    return client


def wait_until(condition: Any, timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def ended(process: psutil.Process) -> bool:
    """Has the process ended, reaped or not?"""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
