"""Connections of this process are told apart by what the kernel counts, and closed when they are overdue."""

import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_network

import pytest

from service.http.connections import HEAD_TIMEOUT_S, ConnectionWatch, open_connections, raise_descriptor_limit


class Server:
    """A port of this process with the two ends of its connections."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.port: int = self._listening.getsockname()[1]

    def connect(self, sent: bytes = b"", answer: bytes = b"") -> socket.socket:
        """A client that has sent this, and then received this."""
        client = self._stack.enter_context(socket.create_connection(("127.0.0.1", self.port)))
        accepted, _ = self._listening.accept()
        self._stack.enter_context(accepted)
        accepted.settimeout(5)
        if sent:
            client.sendall(sent)
            accepted.recv(len(sent))
        if answer:
            time.sleep(0.02)  # the kernel's clock has steps of milliseconds
            accepted.sendall(answer)
            client.recv(len(answer))
            time.sleep(0.02)
        return client


@pytest.fixture
def server() -> Iterator[Server]:
    with ExitStack() as stack:
        yield Server(stack)


def watch(server: Server, *in_flight: socket.socket, proxies: str = "", **changes: float) -> ConnectionWatch:
    addresses = ["{}:{}".format(*client.getsockname()) for client in in_flight]
    limits = {"keep_alive_s": 75.0, "max_connections": 100, "max_client_connections": 100, **changes}
    networks = tuple(ip_network(proxy) for proxy in proxies.split())
    watching = ConnectionWatch(lambda: addresses, trusted_proxies=networks, **limits)  # type: ignore[arg-type]
    watching._port = server.port
    return watching


def is_closed(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False


def test_a_head_without_an_answer_is_told_from_an_answered_request(server: Server) -> None:
    server.connect()
    server.connect(b"GET /")
    server.connect(b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK")
    again = server.connect(b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK")
    again.sendall(b"G")
    time.sleep(0.02)
    assert sorted(one.has_request for one in open_connections(server.port)) == [False, False, True, True]


def test_sockets_that_were_not_accepted_at_the_port_are_left_alone(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, socket.create_connection(other.getsockname()) as client:
        accepted, _ = other.accept()
        with accepted:
            server.connect(b"GET")
            assert len(list(open_connections(server.port))) == 1
            watching = watch(server, keep_alive_s=0.001)
            time.sleep(0.02)
            watching.close_overdue(0.0)
            assert not is_closed(client)


def test_an_unfinished_head_is_closed_after_its_time_even_if_it_goes_on(server: Server) -> None:
    dripping, answered, busy = server.connect(b"G"), server.connect(b"GET", b"200"), server.connect(b"POST")
    watching = watch(server, busy)
    watching.close_overdue(100.0)
    dripping.sendall(b"E")
    watching.close_overdue(99.9 + HEAD_TIMEOUT_S)
    assert not is_closed(dripping)
    dripping.sendall(b"T")
    watching.close_overdue(100.1 + HEAD_TIMEOUT_S)
    assert [is_closed(client) for client in (dripping, answered, busy)] == [True, False, False]


def test_the_time_of_a_head_begins_anew_after_an_answer(server: Server) -> None:
    client = server.connect(b"GET")
    watching = watch(server)
    watching.close_overdue(100.0)
    (accepted,) = open_connections(server.port)
    with socket.socket(fileno=accepted.descriptor) as answering:
        time.sleep(0.02)
        answering.sendall(b"200")
        time.sleep(0.02)
        client.sendall(b"GET")
        client.recv(3)
        watching.close_overdue(100.1 + HEAD_TIMEOUT_S)
        assert not is_closed(client)
        watching.close_overdue(100.2 + 2 * HEAD_TIMEOUT_S)
        assert is_closed(client)
        answering.detach()


@pytest.mark.parametrize("client", [":0", "evil:0", ""])
def test_a_client_without_an_address_stops_nothing(client: str, server: Server) -> None:
    head = server.connect(b"GET /")
    watching = watch(server)
    watching._clients_in_flight = lambda: [client]
    began = time.monotonic()
    watching.close_overdue(began)
    watching.close_overdue(began + HEAD_TIMEOUT_S + 1)
    assert is_closed(head)


def test_an_idle_connection_is_closed_after_the_time_that_is_set(server: Server) -> None:
    silent, answered, busy = server.connect(), server.connect(b"GET", b"200"), server.connect()
    time.sleep(0.1)
    watch(server, busy, keep_alive_s=60).close_overdue(0.0)
    assert not any(is_closed(client) for client in (silent, answered, busy))
    watch(server, busy, keep_alive_s=0.05).close_overdue(0.0)
    assert [is_closed(client) for client in (silent, answered, busy)] == [True, True, False]


def test_beyond_the_limit_of_a_client_unfinished_heads_are_closed_first_and_the_oldest(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    idle, old = server.connect(), server.connect(b"G")
    time.sleep(0.05)
    new, busy = server.connect(b"G"), server.connect(b"POST")
    watch(server, busy, max_client_connections=3).close_overdue(0.0)
    assert [is_closed(client) for client in (idle, old, new, busy)] == [False, True, False, False]
    assert "closed 1 of 4 connections of 127.0.0.1" in caplog.text


@pytest.mark.parametrize(("limit", "num_closed"), [("max_client_connections", 0), ("max_connections", 2)])
def test_a_trusted_proxy_has_only_the_limit_of_all(limit: str, num_closed: int, server: Server) -> None:
    clients = [server.connect() for _ in range(4)]
    watch(server, proxies="127.0.0.0/8", **{limit: 2}).close_overdue(0.0)
    assert sum(is_closed(client) for client in clients) == num_closed


def test_the_process_may_open_all_the_files_that_it_may() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(before[0], 256), before[1]))
        assert raise_descriptor_limit() < before[1]
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
