"""A port belongs to one service, and its workers share it."""

import socket

import pytest

from service.engine.process.port import claim_port
from tests.e2e.serving import free_port


def test_a_claimed_port_cannot_be_claimed_again_until_it_is_free() -> None:
    port = free_port()
    with claim_port("127.0.0.1", port), pytest.raises(OSError, match="in use"):
        claim_port("127.0.0.1", port)
    claim_port("127.0.0.1", port).close()


def test_workers_share_a_claimed_port_and_others_do_not() -> None:
    """granian sets both options."""
    port = free_port()
    with claim_port("127.0.0.1", port), socket.socket() as worker, socket.socket() as other:
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            worker.setsockopt(socket.SOL_SOCKET, option, 1)
        worker.bind(("127.0.0.1", port))
        worker.listen()
        with socket.create_connection(("127.0.0.1", port)):
            connection, _ = worker.accept()
            connection.close()
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))


def test_connections_that_linger_do_not_keep_the_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            connection, _ = server.accept()
            connection.close()  # this end waits for late packets
            client.recv(1)
    claim_port("127.0.0.1", port).close()


def test_a_listening_socket_that_shares_its_port_is_another_service() -> None:
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        with pytest.raises(OSError, match="in use"):
            claim_port("127.0.0.1", listening.getsockname()[1])


@pytest.mark.parametrize("host", ["here", "127.0.0.1:80", ""])
def test_a_host_is_an_address(host: str) -> None:
    with pytest.raises(ValueError, match="does not appear to be"):
        claim_port(host, 3000)
