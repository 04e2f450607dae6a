"""Messages as they come over sockets: whole, broken off, ambiguous, held back. Both hosts answer the same way.

Where a host cannot, the test names the host and the difference, and docs/http.md gives the reason.
"""

import gzip
import http.client
import json
import re
import socket
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from tests.e2e.serving import SERVE, ServerProcess
from tests.service.hosts import GRANIAN, ask, counted, running_server, wait_until
from tests.service.requests import request_body

HOSTS = ("granian", "bentoml")
# Above the limit of unfinished heads, which is 30 s and up to 10 s late on a busy machine.
KEEP_ALIVE_S = 42
BODY = json.dumps(request_body("image-classifier")).encode()
PACKED = gzip.compress(BODY)
CHUNKED = b"transfer-encoding: chunked"
MIB = 1 << 20
NUM_HELD, HELD_BYTES, BUDGET = 40, 8 * MIB, 64 * MIB


def started(command: tuple[str, ...], bundles: Path, folder: Path) -> Iterator[ServerProcess]:
    settings = {"EKIBEN_BODY_BUDGET_BYTES": str(BUDGET), "EKIBEN_KEEP_ALIVE_S": str(KEEP_ALIVE_S)}
    with running_server(command, bundles, folder, **settings) as host:
        yield host


@pytest.fixture(scope="module")
def granian(served_bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    yield from started(GRANIAN, served_bundles, tmp_path_factory.mktemp("granian"))


@pytest.fixture(scope="module")
def bentoml(served_bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    yield from started(SERVE, served_bundles, tmp_path_factory.mktemp("bentoml"))


@pytest.fixture(params=HOSTS)
def host(request: pytest.FixtureRequest) -> ServerProcess:
    found: ServerProcess = request.getfixturevalue(request.param)
    return found


def is_granian(host: ServerProcess) -> bool:
    return "service" in host.process.args  # type: ignore[operator]  # a list


def head(*headers: bytes, target: bytes = b"/classify", name: bytes = b"host: x") -> bytes:
    lines = [b"POST " + target + b" HTTP/1.1", name, b"content-type: application/json", *headers]
    return b"\r\n".join(line for line in lines if line) + b"\r\n\r\n"


def length(size: int) -> bytes:
    return b"content-length: %d" % size


def chunk(content: bytes, extension: bytes = b"") -> bytes:
    return b"%x%s\r\n%s\r\n" % (len(content), extension, content)


def receive(client: socket.socket, *, num_answers: int | None = None) -> bytes:
    """Return what comes until the connection closes or is quiet, or, if a number is given, so many answers begin."""
    received = b""
    try:
        while len(statuses(received)) != num_answers and (more := client.recv(1 << 16)):
            received += more
    except OSError:  # a time-out of a connection that stays open, or a reset
        pass
    return received


def talk(host: ServerProcess, sent: bytes, *, end: str = "", num_answers: int | None = None) -> bytes:
    """Send the bytes and end the stream as `end` says; return what `receive` does, which waits for a second."""
    with socket.create_connection(("127.0.0.1", host.port), timeout=1) as client:
        client.sendall(sent)
        if end == "half-close":
            client.shutdown(socket.SHUT_WR)
        elif end == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return b""
        return receive(client, num_answers=num_answers)


def statuses(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


WHOLE = {
    "declared": head(length(len(BODY))) + BODY,
    "chunked": head(CHUNKED) + chunk(BODY) + b"0\r\n\r\n",
    "many chunks": head(CHUNKED) + b"".join(chunk(BODY[i : i + 9]) for i in range(0, len(BODY), 9)) + b"0\r\n\r\n",
    "chunk extensions": head(CHUNKED) + chunk(BODY, b";a=b;c") + b"0\r\n\r\n",
    "chunked in capitals": head(b"Transfer-Encoding: Chunked") + chunk(BODY) + b"0\r\n\r\n",
    "gzip": head(length(len(PACKED)), b"content-encoding: gzip") + PACKED,
    "gzip, chunked": head(CHUNKED, b"content-encoding: gzip") + chunk(PACKED) + b"0\r\n\r\n",
    "gzip in two members": head(CHUNKED, b"content-encoding: gzip")
    + chunk(gzip.compress(BODY[:9]) + gzip.compress(BODY[9:]))
    + b"0\r\n\r\n",
    "a list of TE": head(length(len(BODY)), b"te: trailers, deflate;q=0.5") + BODY,
    "an absolute target": head(length(len(BODY)), target=b"http://x/classify") + BODY,
    "a slash at the end": head(length(len(BODY)), target=b"/classify/") + BODY,
    "an upgrade": head(length(len(BODY)), b"connection: upgrade", b"upgrade: h2c") + BODY,
}
LAST = head(length(len(BODY)), b"connection: close") + BODY


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_message_is_answered_and_so_is_the_next(name: str, host: ServerProcess) -> None:
    assert statuses(talk(host, WHOLE[name] + LAST)) == [200, 200]


BROKEN = {
    "no last chunk": head(CHUNKED) + chunk(BODY),
    "no end of the last chunk": head(CHUNKED) + chunk(BODY) + b"0\r\n",
    "a trailer that breaks off": head(CHUNKED) + chunk(BODY) + b"0\r\nx-checksum: 1",
    "a chunk that breaks off": head(CHUNKED) + chunk(BODY) + b"64\r\nabc",
    "an extension that breaks off": head(CHUNKED) + chunk(BODY) + b"0;a",
    "a longer length": head(length(len(BODY) + 1)) + BODY,
    "half of gzip": head(length(len(PACKED)), b"content-encoding: gzip") + PACKED[: len(PACKED) // 2],
    "gzip without a last chunk": head(CHUNKED, b"content-encoding: gzip") + chunk(PACKED),
    "gzip whose data break off": head(CHUNKED, b"content-encoding: gzip") + chunk(PACKED[:-1]) + b"0\r\n\r\n",
}


@pytest.mark.parametrize("end", ["half-close", "reset"])
@pytest.mark.parametrize("name", BROKEN)
def test_a_message_that_breaks_off_is_never_answered_as_whole(name: str, end: str, host: ServerProcess) -> None:
    def answered() -> float:
        return counted(host, 'ekiben_http_requests_total{route="/classify"')

    before, good = answered(), counted(host, 'ekiben_http_requests_total{route="/classify",status="200"')
    assert statuses(talk(host, BROKEN[name], end=end)) in ([], [400])
    wait_until(lambda: answered() == before + 1)
    assert counted(host, 'ekiben_http_requests_total{route="/classify",status="200"') == good


MALFORMED = {
    "no size of a chunk": head(CHUNKED) + chunk(BODY) + b"zz\r\n",
    "a size beyond 64 bits": head(CHUNKED) + chunk(BODY) + b"fffffffffffffffff\r\n",
    "no end of a chunk": head(CHUNKED) + chunk(BODY)[:-2] + b"0\r\n\r\n",
    "bytes behind gzip": head(length(len(PACKED) + 1), b"content-encoding: gzip") + PACKED + b"x",
    "a negative length": head(b"content-length: -1") + BODY,
    "a length with a sign": head(b"content-length: +%d" % len(BODY)) + BODY,
    "two lengths": head(length(len(BODY)), length(len(BODY) - 1)) + BODY,
    "a list of lengths": head(b"content-length: %d, %d" % (len(BODY), len(BODY))) + BODY,
    "gzip as transfer encoding": head(b"transfer-encoding: gzip, chunked") + chunk(PACKED) + b"0\r\n\r\n",
    "chunked before gzip": head(b"transfer-encoding: chunked, gzip") + chunk(PACKED) + b"0\r\n\r\n",
    "chunked twice": head(CHUNKED, CHUNKED) + chunk(BODY) + b"0\r\n\r\n",
    "an unknown transfer encoding": head(b"transfer-encoding: xchunked") + chunk(BODY) + b"0\r\n\r\n",
    "identity as transfer encoding": head(b"transfer-encoding: identity", length(len(BODY))) + BODY,
    "no host": head(length(len(BODY)), name=b"") + BODY,
    "two hosts": head(length(len(BODY)), b"host: y") + BODY,
    "a host with a blank": head(length(len(BODY)), name=b"host: a b") + BODY,
    "a folded header": head(b"x-a: 1\r\n  2", length(len(BODY))) + BODY,
    "a blank before a colon": head(b"x-a : 1", length(len(BODY))) + BODY,
    "a NUL": head(b"x-a: \0", length(len(BODY))) + BODY,
    "a target that is no path": head(length(len(BODY)), target=b"classify") + BODY,
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_message_is_refused(name: str, host: ServerProcess) -> None:
    assert statuses(talk(host, MALFORMED[name], num_answers=1))[:1] == [400]


def test_two_lengths_and_trailers_are_where_the_hosts_differ(host: ServerProcess) -> None:
    """hyper reads by the chunks and closes the connection; it does not say whether trailers or an error came."""
    both = talk(host, head(length(len(BODY)), CHUNKED) + chunk(BODY) + b"0\r\n\r\n" + WHOLE["declared"])
    assert statuses(both) == ([200] if is_granian(host) else [400])
    trailers = talk(host, head(CHUNKED) + chunk(BODY) + b"0\r\nx-checksum: 1\r\n\r\n")
    assert statuses(trailers) == ([400] if is_granian(host) else [200])


@pytest.mark.parametrize(
    "path",
    ["/livez/", "/models/", "/models/tiny-images/", "/v2/", "/v2/models/tiny-images/", "/metrics/", "/docs.json/"],
)
def test_a_slash_at_the_end_changes_nothing_and_redirects_nobody(path: str, host: ServerProcess) -> None:
    assert ask(host.port, "GET", path)[0] == ask(host.port, "GET", path[:-1])[0] == 200
    assert ask(host.port, "GET", f"{path}/")[0] == 404  # of two slashes, one is part of the path


@pytest.mark.parametrize("path", ["/openapi.json", "/playground/app.js"])
def test_an_answer_that_the_client_has_tells_no_length(path: str, host: ServerProcess) -> None:
    """A cache would take it for the length of the body that it has."""
    tag = ask(host.port, "GET", path)[1]["etag"]
    for method in ("GET", "HEAD"):
        status, headers, body = ask(host.port, method, path, if_none_match=tag)
        assert (status, body, headers["etag"]) == (304, b"", tag)
        assert "content-length" not in headers
        assert "transfer-encoding" not in headers


def test_an_answer_is_packed_where_its_client_asks_for_it(host: ServerProcess) -> None:
    status, headers, body = ask(host.port, "GET", "/models/tiny-images", accept_encoding="gzip;q=0.5, br")
    assert (status, headers["content-encoding"], headers["vary"]) == (200, "gzip", "accept-encoding")
    _, headers, whole = ask(host.port, "GET", "/models/tiny-images", accept_encoding="gzip;q=0")
    assert "content-encoding" not in headers
    assert json.loads(gzip.decompress(body))["name"] == json.loads(whole)["name"] == "tiny-images"


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("image/png", "image/png"),
        ("image/*", "image/png"),
        ("image/png, application/json", "image/png"),
        ("image/png;q=0", "application/json"),
        ("image/png;q=0.1, application/json", "application/json"),
        ("*/*", "application/json"),
    ],
)
def test_the_weights_of_accept_choose_the_answer(accept: str, content_type: str, host: ServerProcess) -> None:
    body = json.dumps({"model": "tiny-pictures", "count": 1, "seed": 1})
    _, headers, _ = ask(host.port, "POST", "/generate", body, content_type="application/json", accept=accept)
    assert headers["content-type"] == content_type


@pytest.mark.parametrize("declared", [True, False])
def test_bodies_that_are_held_back_cost_the_budget_and_harm_nobody(declared: bool, host: ServerProcess) -> None:
    """One client may use half of the budget; what it sends beyond that is refused, and others are answered."""
    workers = psutil.Process(host.process.pid).children(recursive=True)
    before = sum(worker.memory_info().rss for worker in workers)
    kind = length(HELD_BYTES + 1) if declared else CHUNKED
    size = b"" if declared else b"%x\r\n" % (HELD_BYTES + 1)
    with ExitStack() as stack:
        held = []
        for _ in range(NUM_HELD):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", host.port), timeout=10))
            try:
                client.sendall(head(kind) + size + bytes(HELD_BYTES))
                held.append(client)
            except OSError:  # refused before it was read on
                pass
        time.sleep(0.5)
        grown = sum(worker.memory_info().rss for worker in workers) - before
        assert ask(host.port, "POST", "/classify", BODY, content_type="application/json")[0] == 200
        refused = 0
        for client in held:
            client.settimeout(0.05)
            refused += statuses(receive(client)) == [429]
    assert grown < BUDGET + 32 * MIB
    assert NUM_HELD - len(held) + refused >= NUM_HELD - BUDGET // 2 // HELD_BYTES
    wait_until(lambda: counted(host, "ekiben_http_in_flight") == 0)
    large = BODY + b" " * (12 * MIB)
    assert ask(host.port, "POST", "/classify", large, content_type="application/json")[0] == 200


def test_unfinished_heads_silence_nobody_and_idle_connections_outlive_them(
    granian: ServerProcess, bentoml: ServerProcess
) -> None:
    """On both hosts at once, because they take their time."""
    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(check_unfinished_heads, (granian, bentoml)):
            pass


def check_unfinished_heads(host: ServerProcess) -> None:
    with ExitStack() as stack:
        idle = http.client.HTTPConnection("127.0.0.1", host.port, timeout=10)
        stack.callback(idle.close)
        idle.request("GET", "/livez")
        idle.getresponse().read()
        idle_since = time.monotonic()
        heads = [
            stack.enter_context(socket.create_connection(("127.0.0.1", host.port), timeout=10)) for _ in range(400)
        ]
        for client in heads:
            client.sendall(head()[:-4])  # more of the last value may come
        began = time.monotonic()
        assert ask(host.port, "GET", "/livez")[0] == 200
        assert time.monotonic() - began < 1
        dripping = heads[0]
        dripping.settimeout(1)
        while time.monotonic() < began + 40:
            try:
                dripping.sendall(b"a")
                if dripping.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        assert 29 < time.monotonic() - began < 40
        time.sleep(max(idle_since + KEEP_ALIVE_S - 1.5 - time.monotonic(), 0))
        idle.request("GET", "/livez")
        assert idle.getresponse().status == 200
