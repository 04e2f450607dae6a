"""Requests over HTTP at the times of a Poisson process, or from clients who ask again as soon as they are answered.

    python -m benchmarks.engine.generator < load.json

One thread, one selector, requests made beforehand: a few microseconds of processor time for each, so that what is
measured is the service. In the open loop a request leaves at its time whatever else is pending, over a connection that
is free or over a new one; how late it left is reported. Every request asks something new (eight digits of its body are
its number), except those who come back as told: they ask the same again.
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

MOST_CONNECTIONS = 4096
AT_A_TIME = 32  # requests sent before answers are looked at again
LAST_ANSWERS_S = 3.0
NUMBERS = 10**8


@dataclass(kw_only=True)
class Tally:
    """Of the requests that were sent while it was the current one; all times in seconds, as the client sees them."""

    sent: int = 0
    good: int = 0  # answered in time
    statuses: Counter[str] = field(default_factory=Counter)
    returned: Counter[str] = field(default_factory=Counter)  # those of requests that came back as told
    late_sent_s: list[float] = field(default_factory=list)
    answer_s: list[float] = field(default_factory=list)
    refusal_s: list[float] = field(default_factory=list)
    retry_after_s: Counter[int] = field(default_factory=Counter)


class Connection:
    __slots__ = ("buffer", "number", "returned", "sent_at", "socket", "tally", "unsent")

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.buffer = b""
        self.unsent: memoryview | None = None
        self.number = 0
        self.returned = False
        self.sent_at = 0.0
        self.tally: Tally


class Generator:
    """`load`: address, request (bytes as latin-1), number_at (where the digits are), deadline_s, obey, seed."""

    def __init__(self, load: dict[str, Any]) -> None:
        self._address = load["host"], load["port"]
        self._request = bytearray(load["request"].encode("latin-1"))
        self._number_at = load["number_at"]
        self._deadline_s = load["deadline_s"]
        self._obey = load["obey"]
        self._random = random.Random(load["seed"])
        self._number = self._random.randrange(NUMBERS)
        self._epoll = select.epoll()
        self._connections: dict[int, Connection] = {}
        self._free: list[Connection] = []
        self._returns: list[tuple[float, int, Connection]] = []
        self.tally = Tally()

    @property
    def connections(self) -> int:
        """Open now."""
        return len(self._connections)

    def closed(self, clients: int, seconds: float) -> float:
        """Answers a second that come in time."""
        now = time.monotonic()
        end = now + seconds
        for _ in range(clients):
            self._send(self._next_number(), now)
        while (now := time.monotonic()) < end:
            self._receive(end - now)
            while self._free:
                self._send(self._next_number(), time.monotonic())
        good = self.tally.good
        self._finish()
        return good / seconds

    def open(self, rate: float, seconds: float, warm_up_s: float) -> float:
        """Answers in time a second, the warm-up aside."""
        due = began = time.monotonic()
        warm = began + warm_up_s
        end = warm + seconds
        good_at_warm: int | None = None
        while due < end:
            now = time.monotonic()
            if good_at_warm is None and now >= warm:
                before, self.tally = self.tally, Tally()
                good_at_warm = before.good
            for _ in range(AT_A_TIME):
                if due > now:
                    break
                self._send(self._next_number(), due)
                due += self._random.expovariate(rate)
            while self._returns and self._returns[0][0] <= now:
                at, number, connection = heapq.heappop(self._returns)
                self._send(number, at, over=connection)
            next_at = min(due, self._returns[0][0]) if self._returns else due
            self._receive(max(next_at - time.monotonic(), 0.0))
        good = self.tally.good + (before.good - good_at_warm if good_at_warm is not None else 0)
        self._finish()
        return good / seconds

    def _finish(self) -> None:
        """Wait for the answers that are still to come."""
        self._obey = 0.0
        end = time.monotonic() + LAST_ANSWERS_S
        while len(self._free) + len(self._returns) < len(self._connections) and (now := time.monotonic()) < end:
            self._receive(end - now)

    def _next_number(self) -> int:
        self._number = (self._number + 1) % NUMBERS
        return self._number

    def _send(self, number: int, due: float, *, over: Connection | None = None) -> None:
        while self._free and self._free[-1].socket.fileno() < 0:
            self._free.pop()  # the service has closed what was idle for long
        if over is not None and over.socket.fileno() >= 0:
            connection = over
        elif self._free:
            connection = self._free.pop()
        elif len(self._connections) < MOST_CONNECTIONS:
            connection = Connection(self._address)
            self._connections[connection.socket.fileno()] = connection
            self._epoll.register(connection.socket, select.EPOLLIN)
        else:
            self.tally.statuses["no connection"] += 1
            return
        tally = connection.tally = self.tally
        connection.number, connection.returned = number, over is not None
        self._request[self._number_at : self._number_at + 8] = b"%08d" % number
        connection.sent_at = now = time.monotonic()
        tally.sent += 1
        tally.late_sent_s.append(now - due)
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
        if not select.select([self._epoll], [], [], timeout_s)[0]:  # to the microsecond, which poll is not
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
                head, found, body = content.partition(b"\r\n\r\n")
                if found and len(body) >= int(_header(head, b"content-length: ")):
                    connection.buffer = b""
                    self._answered(connection, head)
                else:
                    connection.buffer = content

    def _answered(self, connection: Connection, head: bytes) -> None:
        took_s = time.monotonic() - connection.sent_at
        status, tally = head[9:12].decode(), connection.tally
        if status == "200" and took_s > self._deadline_s:
            status = "200 late"
        tally.statuses[status] += 1
        if connection.returned:
            tally.returned[status] += 1
        if status == "503":
            tally.refusal_s.append(took_s)
            retry_after_s = int(_header(head, b"retry-after: "))
            tally.retry_after_s[retry_after_s] += 1
            if not connection.returned and self._random.random() < self._obey:
                heapq.heappush(self._returns, (time.monotonic() + retry_after_s, connection.number, connection))
                return  # who waits keeps its connection
        else:
            tally.answer_s.append(took_s)
            tally.good += status == "200"
        self._free.append(connection)

    def _drop(self, connection: Connection, why: str) -> None:
        connection.tally.statuses[why] += 1
        del self._connections[connection.socket.fileno()]
        connection.socket.close()


def _header(head: bytes, name: bytes) -> bytes:
    at = head.find(name)
    if at < 0:
        raise ValueError(f"{head[:200]!r}: no header {name.decode()!r}")
    at += len(name)
    end = head.find(b"\r", at)
    return head[at:] if end < 0 else head[at:end]


def _milliseconds(values: list[float]) -> dict[str, float]:
    ranked = sorted(values) or [0.0]
    shares = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
    found = {name: ranked[min(int(share * len(ranked)), len(ranked) - 1)] for name, share in shares.items()}
    return {name: round(value * 1e3, 3) for name, value in {**found, "max": ranked[-1]}.items()}


def main() -> None:
    load = json.load(sys.stdin)
    generator = Generator(load)
    began, cpu = time.monotonic(), sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    if "clients" in load:
        good_per_s = generator.closed(load["clients"], load["seconds"])
    else:
        good_per_s = generator.open(load["rate"], load["seconds"], load["warm_up_s"])
    cpu = sum(resource.getrusage(resource.RUSAGE_SELF)[:2]) - cpu
    tally = generator.tally
    result = {
        "good_per_s": good_per_s,
        "sent": tally.sent,
        "statuses": tally.statuses,
        "returned": tally.returned,
        "retry_after_s": tally.retry_after_s,
        "answer_ms": _milliseconds(tally.answer_s),
        "refusal_ms": _milliseconds(tally.refusal_s),
        "sent_late_ms": _milliseconds(tally.late_sent_s),
        "connections": generator.connections,
        "generator_cores": round(cpu / (time.monotonic() - began), 3),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
