"""uvicorn with our protocol, as a client on a socket sees it."""

import asyncio
import json
import re
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from service.http.uvicorn import protocol
from service.http.uvicorn.protocol import MAX_HEAD_BYTES, MAX_HEADERS, MAX_TARGET_BYTES

KEEP_ALIVE_S = 0.5
UPGRADES = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAAAAIAAAAB\r\n"
CLIENTS: list[Any] = []  # of the requests


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer with what was seen of the request, after a moment."""
    CLIENTS.append(scope["client"])
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body, more = body + message.get("body", b""), message.get("more_body", False)
    await asyncio.sleep(0.02)
    names = sorted(name.decode() for name, _ in scope["headers"])
    answer = json.dumps([scope["method"], scope["path"], names, body.decode()]).encode()
    headers = [(b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


@pytest.fixture(scope="module")
def ports() -> list[int]:
    return []


@pytest.fixture(scope="module")
def port(ports: list[int]) -> Iterator[int]:
    with pytest.MonkeyPatch.context() as patch, socket.create_server(("127.0.0.1", 0)) as listening:
        patch.setattr(uvicorn.protocols.http.auto, "AutoHTTPProtocol", None)
        protocol.install(KEEP_ALIVE_S, ports.append)
        server = uvicorn.Server(uvicorn.Config(echo, lifespan="off", log_config=None, timeout_keep_alive=5))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield listening.getsockname()[1]
        server.should_exit = True
        thread.join()


def talk(port: int, *parts: bytes) -> bytes:
    """Send the parts, and return everything until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        for part in parts:
            client.sendall(part)
            threading.Event().wait(0.05)
        received = b""
        while more := client.recv(1 << 16):
            received += more
    return received


def answers(received: bytes) -> list[tuple[int, Any]]:
    """The status and the JSON of each answer."""
    found = []
    while received:
        head, _, received = received.partition(b"\r\n\r\n")
        (length,) = (int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
        found.append((int(head[9:12]), json.loads(received[:length])))
        received = received[length:]
    return found


def post(body: bytes, *, path: bytes = b"/x", upgrades: bytes = UPGRADES, chunked: bool = False) -> bytes:
    if chunked:
        return b"POST %s HTTP/1.1\r\nhost: x\r\n%stransfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (
            path, upgrades, len(body), body,
        )  # fmt: skip
    return b"POST %s HTTP/1.1\r\nhost: x\r\n%scontent-length: %d\r\n\r\n%s" % (path, upgrades, len(body), body)


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("cut", [None, 1, 70, -1, -9])
def test_an_offered_upgrade_is_ignored(port: int, chunked: bool, cut: int | None) -> None:
    """The body arrives, and so does the next request."""
    sent = post(b"0123456789", chunked=chunked)
    second = post(b"more", path=b"/y", upgrades=b"")
    length = "transfer-encoding" if chunked else "content-length"
    received = talk(port, sent[:cut], sent[cut:] + second) if cut else talk(port, sent + second)
    assert answers(received) == [
        (200, ["POST", "/x", sorted(["connection", "host", length]), "0123456789"]),
        (200, ["POST", "/y", ["content-length", "host"], "more"]),
    ]


def test_a_websocket_is_not_opened(port: int) -> None:
    asked = b"GET /x HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    assert answers(talk(port, asked)) == [(200, ["GET", "/x", ["connection", "host"], ""])]


@pytest.mark.parametrize(
    ("head", "status", "code"),
    [
        (b"GET /" + b"a" * MAX_TARGET_BYTES + b" HTTP/1.1\r\n", 414, "target-too-long"),
        (b"GET /x HTTP/1.1\r\n" + b"a: b\r\n" * (MAX_HEADERS + 1), 431, "head-too-large"),
        (b"GET /x HTTP/1.1\r\na: " + b"b" * MAX_HEAD_BYTES + b"\r\n", 431, "head-too-large"),
        (b"GET /x HTTP/2.0\r\n", 400, "malformed-message"),
        (b"POST /x HTTP/1.0\r\ntransfer-encoding: chunked\r\n", 400, "malformed-message"),
        (b"CONNECT x:80 HTTP/1.1\r\n", 400, "malformed-message"),
        (b"GET /x\r\n", 400, "malformed-message"),
        (b"\x16\x03\x01\r\n", 400, "malformed-message"),
        (b"GET /x HTTP/1.1\r\na : b\r\n", 400, "malformed-message"),
        (b"POST /x HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 1\r\n", 400, "malformed-message"),
        (b"POST /x HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n", 400, "malformed-message"),
    ],
)
def test_a_head_that_cannot_be_accepted_is_answered_with_a_problem(
    port: int, head: bytes, status: int, code: str
) -> None:
    received = talk(port, head + b"\r\n")
    assert b"\r\ncontent-type: application/problem+json\r\n" in received
    assert b"\r\nconnection: close\r\n" in received
    assert len(re.findall(rb"\r\nx-request-id: [0-9a-f]{16}\r\n", received)) == 1
    ((got, problem),) = answers(received)
    assert (got, problem["status"], problem["code"]) == (status, status, code)


def test_an_error_has_the_format_of_its_route(port: int) -> None:
    received = talk(port, b"POST /v2/models/a/infer HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n")
    assert b"\r\ncontent-type: application/json\r\n" in received
    ((status, document),) = answers(received)
    assert (status, document["error"]) == (400, document["detail"])


def test_whole_requests_before_a_broken_one_are_answered_first(port: int) -> None:
    first, second = post(b"1", upgrades=b""), post(b"2", upgrades=b"", path=b"/y")
    (one, two, (status, problem)) = answers(talk(port, first + second + b"\0\r\n\r\n"))
    assert (one[1][3], two[1][3]) == ("1", "2")
    assert (status, problem["code"]) == (400, "malformed-message")


def test_an_idle_connection_is_closed_after_the_time_that_is_set(port: int) -> None:
    """`talk` returns because of it; uvicorn's own setting is ten times as long."""
    ((status, _),) = answers(talk(port, b"GET /x HTTP/1.1\r\nhost: x\r\n\r\n"))
    assert status == 200


def test_the_port_is_told(port: int, ports: list[int]) -> None:
    talk(port, b"GET\0\r\n\r\n")
    assert set(ports) == {port}


@pytest.mark.parametrize("forwarded", [b"192.0.2.1", b"evil"])
def test_the_client_is_that_of_the_connection_whatever_a_header_says(port: int, forwarded: bytes) -> None:
    head = b"GET /x HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-forwarded-for: " + forwarded + b"\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(head)
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        assert CLIENTS[-1] == client.getsockname()
