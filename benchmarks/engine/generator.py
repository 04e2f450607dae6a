"""Send requests over HTTP, in an open loop at the times of a Poisson process or in a closed loop.

    python -m benchmarks.engine.generator < load.json

One thread with one selector sends prepared requests and spends a few microseconds of CPU time on each, so the service
is the bottleneck. In the open loop a request leaves at its scheduled time whatever else is pending, over a free
connection or a new one; the delay of its departure is reported. In the closed loop each client sends its next request
as soon as the last one is answered. Every request is different, because eight digits of it are its number. A share of
the refused requests is sent again, unchanged and on the same connection, after the time given by Retry-After.
"""

import heapq
import json
import random
import resource
import select
import socket
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

MAX_CONNECTIONS = 4096
SEND_BURST = 32  # requests sent before responses are received again
DRAIN_TIMEOUT_S = 3.0
NUM_NUMBERS = 10**8


@dataclass(kw_only=True)
class Statistics:
    """Counts and times of the requests sent during one phase, as the client sees them.

    `num_good` counts responses with status 200 within the deadline, `retry_statuses` the statuses of retried requests.
    """

    num_sent: int = 0
    num_good: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    retry_statuses: Counter[str] = field(default_factory=Counter)
    send_delay_s: list[float] = field(default_factory=list)
    response_s: list[float] = field(default_factory=list)
    refusal_s: list[float] = field(default_factory=list)
    retry_after_s: Counter[int] = field(default_factory=Counter)


class Connection:
    __slots__ = ("buffer", "is_retry", "number", "sent_at", "socket", "statistics", "unsent")

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.buffer = b""
        self.unsent: memoryview | None = None
        self.number = 0
        self.is_retry = False
        self.sent_at = 0.0
        self.statistics: Statistics


class Generator:
    """`load` has host, port, request (bytes as latin-1), number_offset, deadline_s, retry_rate and seed.

    `number_offset` is the position of the eight digits in the request, `retry_rate` the share of the refused requests
    that is retried.
    """

    def __init__(self, load: dict[str, Any]) -> None:
        self._address = load["host"], load["port"]
        self._request = bytearray(load["request"].encode("latin-1"))
        self._number_offset = load["number_offset"]
        self._deadline_s = load["deadline_s"]
        self._retry_rate = load["retry_rate"]
        self._random = random.Random(load["seed"])
        self._number = self._random.randrange(NUM_NUMBERS)
        self._epoll = select.epoll()
        self._connections: dict[int, Connection] = {}
        self._free: list[Connection] = []
        self._retries: list[tuple[float, int, Connection]] = []
        self.statistics = Statistics()

    @property
    def num_connections(self) -> int:
        return len(self._connections)

    def run_closed_loop(self, num_clients: int, seconds: float) -> float:
        """Return the responses per second that arrive within the deadline."""
        now = time.monotonic()
        end = now + seconds
        for _ in range(num_clients):
            self._send(self._next_number(), now)
        while (now := time.monotonic()) < end:
            self._receive(end - now)
            while self._free:
                self._send(self._next_number(), time.monotonic())
        num_good = self.statistics.num_good
        self._drain()
        return num_good / seconds

    def run_open_loop(self, rate: float, seconds: float, warm_up_s: float) -> float:
        """Return the responses per second that arrive within the deadline after the warm-up."""
        due = time.monotonic()
        warm_up_end = due + warm_up_s
        end = warm_up_end + seconds
        warm_up, good_in_warm_up = self.statistics, 0
        while due < end:
            now = time.monotonic()
            if self.statistics is warm_up and now >= warm_up_end:
                self.statistics = Statistics()
                good_in_warm_up = warm_up.num_good
            for _ in range(SEND_BURST):
                if due > now:
                    break
                self._send(self._next_number(), due)
                due += self._random.expovariate(rate)
            while self._retries and self._retries[0][0] <= now:
                retry_at, number, connection = heapq.heappop(self._retries)
                self._send(number, retry_at, over=connection)
            next_at = min(due, self._retries[0][0]) if self._retries else due
            self._receive(max(next_at - time.monotonic(), 0.0))
        num_good = self.statistics.num_good
        if self.statistics is not warm_up:
            # Requests sent in the warm-up and answered after it count too.
            num_good += warm_up.num_good - good_in_warm_up
        self._drain()
        return num_good / seconds

    def _drain(self) -> None:
        """Receive the responses that are still pending."""
        self._retry_rate = 0.0
        end = time.monotonic() + DRAIN_TIMEOUT_S
        while len(self._free) + len(self._retries) < len(self._connections) and (now := time.monotonic()) < end:
            self._receive(end - now)

    def _next_number(self) -> int:
        self._number = (self._number + 1) % NUM_NUMBERS
        return self._number

    def _send(self, number: int, due: float, *, over: Connection | None = None) -> None:
        while self._free and self._free[-1].socket.fileno() < 0:
            # The service has closed this connection because it was idle for too long.
            self._free.pop()
        if over is not None and over.socket.fileno() >= 0:
            connection = over
        elif self._free:
            connection = self._free.pop()
        elif len(self._connections) < MAX_CONNECTIONS:
            connection = Connection(self._address)
            self._connections[connection.socket.fileno()] = connection
            self._epoll.register(connection.socket, select.EPOLLIN)
        else:
            self.statistics.statuses["no connection"] += 1
            return
        statistics = connection.statistics = self.statistics
        connection.number, connection.is_retry = number, over is not None
        self._request[self._number_offset : self._number_offset + 8] = b"%08d" % number
        connection.sent_at = now = time.monotonic()
        statistics.num_sent += 1
        statistics.send_delay_s.append(now - due)
        try:
            sent = connection.socket.send(self._request)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._drop(connection, type(error).__name__)
            return
        if sent < len(self._request):
            connection.unsent = memoryview(bytes(self._request))[sent:]
            self._epoll.modify(connection.socket, select.EPOLLIN | select.EPOLLOUT)

    def _receive(self, timeout_s: float) -> None:
        # The timeout of select() has a resolution of microseconds, that of poll() of milliseconds.
        if not select.select([self._epoll], [], [], timeout_s)[0]:
            return
        for descriptor, event in self._epoll.poll(0):
            connection = self._connections[descriptor]
            if event & select.EPOLLOUT and connection.unsent is not None:
                connection.unsent = connection.unsent[connection.socket.send(connection.unsent) :]
                if not connection.unsent:
                    connection.unsent = None
                    self._epoll.modify(connection.socket, select.EPOLLIN)
            if event & ~select.EPOLLOUT:
                try:
                    content = connection.socket.recv(65536)
                except OSError:
                    content = b""
                if not content:
                    self._drop(connection, "connection lost")
                    continue
                content = connection.buffer + content
                head, has_head, body = content.partition(b"\r\n\r\n")
                if has_head and len(body) >= int(_header(head, b"content-length: ")):
                    connection.buffer = b""
                    self._record_response(connection, head)
                else:
                    connection.buffer = content

    def _record_response(self, connection: Connection, head: bytes) -> None:
        response_s = time.monotonic() - connection.sent_at
        status, statistics = head[9:12].decode(), connection.statistics
        if status == "200" and response_s > self._deadline_s:
            status = "200 late"
        statistics.statuses[status] += 1
        if connection.is_retry:
            statistics.retry_statuses[status] += 1
        if status == "503":
            statistics.refusal_s.append(response_s)
            retry_after_s = int(_header(head, b"retry-after: "))
            statistics.retry_after_s[retry_after_s] += 1
            if not connection.is_retry and self._random.random() < self._retry_rate:
                # The connection stays reserved for the retry.
                heapq.heappush(self._retries, (time.monotonic() + retry_after_s, connection.number, connection))
                return
        else:
            statistics.response_s.append(response_s)
            statistics.num_good += status == "200"
        self._free.append(connection)

    def _drop(self, connection: Connection, reason: str) -> None:
        connection.statistics.statuses[reason] += 1
        del self._connections[connection.socket.fileno()]
        connection.socket.close()


def _header(head: bytes, name: bytes) -> bytes:
    start = head.find(name)
    if start < 0:
        raise ValueError(f"{head[:200]!r}: no header {name.decode()!r}")
    start += len(name)
    end = head.find(b"\r", start)
    return head[start:] if end < 0 else head[start:end]


def _percentiles_ms(values_s: list[float]) -> dict[str, float]:
    ranked = sorted(values_s) or [0.0]
    quantiles = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
    found = {name: ranked[min(int(share * len(ranked)), len(ranked) - 1)] for name, share in quantiles.items()}
    return {name: round(value_s * 1e3, 3) for name, value_s in {**found, "max": ranked[-1]}.items()}


def _cpu_s() -> float:
    return sum(resource.getrusage(resource.RUSAGE_SELF)[:2])


def main() -> None:
    load = json.load(sys.stdin)
    generator = Generator(load)
    start, cpu_before_s = time.monotonic(), _cpu_s()
    if "num_clients" in load:
        good_per_s = generator.run_closed_loop(load["num_clients"], load["seconds"])
    else:
        good_per_s = generator.run_open_loop(load["rate"], load["seconds"], load["warm_up_s"])
    generator_cpu = (_cpu_s() - cpu_before_s) / (time.monotonic() - start)
    statistics = generator.statistics
    result = {
        "good_per_s": good_per_s,
        "num_sent": statistics.num_sent,
        "statuses": statistics.statuses,
        "retry_statuses": statistics.retry_statuses,
        "retry_after_s": statistics.retry_after_s,
        "response_ms": _percentiles_ms(statistics.response_s),
        "refusal_ms": _percentiles_ms(statistics.refusal_s),
        "send_delay_ms": _percentiles_ms(statistics.send_delay_s),
        "num_connections": generator.num_connections,
        "generator_cpu": round(generator_cpu, 3),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
