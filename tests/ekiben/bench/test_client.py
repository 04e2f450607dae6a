"""The client answers for every query, whatever the server does."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from benchmarks.slo.known_delays import delayed_server
from ekiben.bench import client as module
from ekiben.bench.client import Answer, Client, Query

REQUEST = b"POST /v2/models/delayed/infer HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"


def send(url: str, count: int, *, connections: int = 2) -> tuple[list[Answer], Client]:
    """The answers to so many queries, in the order in which they came."""
    answers: list[Answer] = []
    complete = threading.Event()

    def on_answer(answer: Answer) -> None:
        answers.append(answer)
        if len(answers) == count:
            complete.set()

    client = Client(url, on_answer, connections=connections)
    client.submit([Query(number, REQUEST) for number in range(count)])
    assert complete.wait(30)
    assert client.busy_s() > 0
    client.close()
    return answers, client


@contextmanager
def server(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that treats each connection so."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                connection.recv(1 << 16)
                answer(connection)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()


def test_queries_wait_for_a_free_connection() -> None:
    with delayed_server(fail_every=3) as url:
        answers, client = send(url, 12)
    assert sorted(answer.query.number for answer in answers) == list(range(12))
    assert client.failures == {"status 503": 4}
    assert all(answer.body for answer in answers if not answer.failure)


@pytest.mark.parametrize("content", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", b"no HTTP\r\n\r\n"])
def test_a_broken_answer_is_a_failure(content: bytes) -> None:
    with server(lambda connection: connection.sendall(content)) as url:
        answers, client = send(url, 3)
    assert client.failures == {"connection closed": 3}
    assert len(answers) == 3


def test_a_connection_that_the_server_closes_is_replaced() -> None:
    content = b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    with server(lambda connection: connection.sendall(content)) as url:
        answers, client = send(url, 5, connections=1)
    assert [answer.body for answer in answers] == [b"ok"] * 5
    assert not client.failures


def test_a_server_that_is_silent_or_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 0.2)
    release = threading.Event()
    with server(lambda _: bool(release.wait(10))) as url:
        _, client = send(url, 2, connections=2)
        release.set()
    assert client.failures == {"connection closed": 2}
    _, client = send(url, 2)
    assert client.failures == {"cannot connect": 2}
