"""Closes connections that the host would keep: with an unfinished head, idle for too long, or one too many.

The kernel counts the bytes of each connection, so a thread looks at all of them about once a second and a request costs
nothing. Invariant: a connection with a request in flight is never closed.
"""

import ctypes
import logging
import os
import resource
import socket
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from ipaddress import ip_address
from typing import NamedTuple

from service.http.wire.messages import Network, is_in

HEAD_TIMEOUT_S = 30.0
INTERVAL_S = 1.0
MAX_LOAD = 0.05  # of a core
SPARE_DESCRIPTORS = 256  # for everything but connections
LISTENING = 10  # of the kernel's tcp_states.h
# struct tcp_info of linux/tcp.h
STATE, LAST_DATA_SENT, LAST_DATA_RECEIVED, BYTES_RECEIVED, DATA_SEGMENTS_SENT, INFO_SIZE = 0, 44, 52, 128, 156, 160

Address = tuple[bytes, int]  # packed, and the port

log = logging.getLogger(__name__)


class Connection(NamedTuple):
    descriptor: int
    peer: Address
    has_request: bool  # bytes that no response followed
    num_responses: int  # segments that were sent
    idle_s: float


class ConnectionWatch:
    """Watches the connections of one port of this process."""

    def __init__(
        self,
        clients_in_flight: Callable[[], Iterable[str]],
        *,
        keep_alive_s: float,
        max_connections: int,
        max_client_connections: int,
        trusted_proxies: tuple[Network, ...],
    ) -> None:
        """`clients_in_flight` returns the addresses of clients whose requests are in flight, as HOST:PORT."""
        self._clients_in_flight = clients_in_flight
        self._keep_alive_s = keep_alive_s
        self._max_connections = max_connections
        self._max_client_connections = max_client_connections
        self._trusted_proxies = trusted_proxies
        self._port = 0
        self._unfinished: dict[Address, tuple[int, float]] = {}  # peer -> its responses, and when the head was seen

    def start(self, port: int) -> None:
        """Start the thread, once, for the connections that this process accepts at the port."""
        if self._port == 0:
            self._port = port
            self._max_connections = min(self._max_connections, raise_descriptor_limit())
            threading.Thread(target=self._run, name="connections", daemon=True).start()

    def _run(self) -> None:
        duration_s = 0.0
        while True:
            time.sleep(max(INTERVAL_S, duration_s / MAX_LOAD))
            started_at = time.perf_counter()
            try:
                self.close_overdue(time.monotonic())
            except OSError as error:  # such as no descriptor left for the list of descriptors
                log.warning("connections cannot be watched: %s", error)
            except Exception:  # the thread must outlast what nobody foresaw
                log.exception("connections cannot be watched")
            duration_s = time.perf_counter() - started_at

    def close_overdue(self, now: float) -> None:
        """Close connections that are overdue, and those beyond the limits; `now` is that of `time.monotonic`."""
        in_flight = {_packed(client) for client in self._clients_in_flight()}
        connections = list(open_connections(self._port))
        waiting = [connection for connection in connections if connection.peer not in in_flight]
        unfinished: dict[Address, tuple[int, float]] = {}
        remaining = []
        for connection in waiting:
            since = now
            if connection.has_request:
                num_responses, earlier = self._unfinished.get(connection.peer, (-1, now))
                since = earlier if num_responses == connection.num_responses else now
                unfinished[connection.peer] = connection.num_responses, since
            if now - since > HEAD_TIMEOUT_S or connection.idle_s > self._keep_alive_s:
                _close(connection)
            else:
                remaining.append(connection)
        self._unfinished = unfinished
        self._close_beyond_limits(connections, remaining)

    def _close_beyond_limits(self, connections: Collection[Connection], waiting: Collection[Connection]) -> None:
        """Close waiting connections of clients that have too many, those with unfinished heads and the oldest first."""
        if len(connections) <= min(self._max_client_connections, self._max_connections):
            return
        clients = defaultdict(list)
        for connection in waiting:
            clients[connection.peer[0]].append(connection)
        num_open: dict[bytes, int] = defaultdict(int)
        for connection in connections:
            num_open[connection.peer[0]] += 1
        num_beyond = len(connections) - self._max_connections
        for client in sorted(clients, key=lambda client: -num_open[client]):
            num_closed = max(num_open[client] - self._max_client_connections, 0)
            if num_closed and is_in(str(ip_address(client)), self._trusted_proxies):
                num_closed = 0
            num_closed = max(num_closed, min(num_beyond, num_open[client]))
            overdue = sorted(clients[client], key=lambda one: (not one.has_request, -one.idle_s))[:num_closed]
            for connection in overdue:
                _close(connection)
            num_beyond -= len(overdue)
            if overdue:
                log.warning("closed %d of %d connections of %s", len(overdue), num_open[client], ip_address(client))


def raise_descriptor_limit() -> int:
    """Let this process open as many files as it may; return how many of them may be connections."""
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    return max(limit - SPARE_DESCRIPTORS, limit // 2) if limit != resource.RLIM_INFINITY else 1 << 30


# These calls return at once, so they keep the interpreter lock.
_libc = ctypes.PyDLL(None)
_info = ctypes.create_string_buffer(INFO_SIZE)
_address = ctypes.create_string_buffer(128)
_size = ctypes.c_uint32()


def open_connections(port: int) -> Iterable[Connection]:
    """Yield the connections that this process has accepted at the port; not thread-safe."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - thousands, as numbers
        descriptor = int(name)
        _size.value = INFO_SIZE
        if (
            _libc.getsockopt(descriptor, socket.IPPROTO_TCP, socket.TCP_INFO, _info, ctypes.byref(_size)) != 0
            or _size.value < INFO_SIZE
            or _info.raw[STATE] == LISTENING
        ):
            continue
        local, peer = _read_address(_libc.getsockname, descriptor), _read_address(_libc.getpeername, descriptor)
        if local is None or peer is None or local[1] != port:
            continue
        sent_ms, _, received_ms = struct.unpack_from("3I", _info, LAST_DATA_SENT)
        (num_received,) = struct.unpack_from("Q", _info, BYTES_RECEIVED)
        (num_responses,) = struct.unpack_from("I", _info, DATA_SEGMENTS_SENT)
        has_request = num_received > 0 and (num_responses == 0 or received_ms < sent_ms)
        yield Connection(descriptor, peer, has_request, num_responses, min(sent_ms, received_ms) / 1e3)


def _read_address(call: Callable[..., int], descriptor: int) -> Address | None:
    _size.value = len(_address)
    if call(descriptor, _address, ctypes.byref(_size)) != 0:
        return None
    raw = _address.raw
    (family,) = struct.unpack_from("H", raw)
    start, end = (4, 8) if family == socket.AF_INET else (8, 24)
    return _unmapped(raw[start:end]), int.from_bytes(raw[2:4], "big")


def _unmapped(packed: bytes) -> bytes:
    """Return an IPv4 address that IPv6 maps as that address."""
    return packed[12:] if packed[:12] == b"\0" * 10 + b"\xff\xff" else packed


def _packed(client: str) -> Address | None:
    """Return the address of HOST:PORT, or None if there is none: a host forgets that of a client that has gone."""
    host, _, port = client.rpartition(":")
    try:
        return _unmapped(ip_address(host.strip("[]")).packed), int(port)
    except ValueError:
        return None


def _close(connection: Connection) -> None:
    """Have the host see the end of the connection, unless its descriptor belongs to another one by now."""
    if _read_address(_libc.getpeername, connection.descriptor) == connection.peer:
        _libc.shutdown(connection.descriptor, socket.SHUT_RDWR)
