"""An HTTP client that sends prepared requests at the moments that a load generator chooses.

It has a thread and an event loop of its own. Requests wait for a free connection in the order of their arrival, and
that time counts: the load generator measures from the moment at which a request was due.
"""

import asyncio
import ssl
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

import httptools

TIMEOUT_S = 30.0


class Query(NamedTuple):
    """A request to send: the number of the query for the load generator, and the bytes of the request."""

    number: int
    request: bytes


@dataclass(frozen=True, kw_only=True)
class Answer:
    """`failure`: why there is no usable answer, or an empty text."""

    query: Query
    body: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    failure: str = ""


class Client:
    """Sends queries over at most `connections` connections and calls `on_answer` for each, on its own thread.

    `failures` counts the queries without a usable answer by reason. `busy_s`: CPU seconds of the thread.
    """

    def __init__(self, url: str, on_answer: Callable[[Answer], None], *, connections: int) -> None:
        parts = urlsplit(url)
        assert parts.hostname, url
        self.failures: Counter[str] = Counter()
        self._address = (parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))
        self._ssl = ssl.create_default_context() if parts.scheme == "https" else None
        self._on_answer, self._connections = on_answer, connections
        self._waiting: deque[Query] = deque()
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()
        self._num_opening = 0
        self._opening: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="client", daemon=True)
        self._thread.start()

    def submit(self, queries: Sequence[Query]) -> None:
        """Send queries as soon as connections are free; from any thread."""
        self._loop.call_soon_threadsafe(self._enqueue, queries)

    def busy_s(self) -> float:
        """CPU seconds that the thread of the client has used."""
        return asyncio.run_coroutine_threadsafe(_thread_time(), self._loop).result()

    def close(self) -> None:
        async def close() -> None:
            for connection in list(self._open):
                connection.abort()

        asyncio.run_coroutine_threadsafe(close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def finish(self, connection: "_Connection", answer: Answer) -> None:
        """Take the answer of a connection, and give it the next query unless it is closed."""
        if answer.failure:
            self.failures[answer.failure] += 1
        self._on_answer(answer)
        if connection in self._open:
            if self._waiting:
                connection.send(self._waiting.popleft())
            else:
                self._idle.append(connection)
        else:
            self._open_more()

    def closed(self, connection: "_Connection") -> None:
        self._open.discard(connection)
        with suppress(ValueError):
            self._idle.remove(connection)

    def _enqueue(self, queries: Sequence[Query]) -> None:
        for query in queries:
            if self._idle:
                self._idle.pop().send(query)
                continue
            self._waiting.append(query)
            self._open_more()

    def _open_more(self) -> None:
        """Open a connection for a query that waits, if there may be another one."""
        if self._num_opening < len(self._waiting) and len(self._open) + self._num_opening < self._connections:
            self._num_opening += 1
            task = self._loop.create_task(self._connect())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _connect(self) -> None:
        host, port = self._address
        try:
            opening = self._loop.create_connection(lambda: _Connection(self, self._loop), host, port, ssl=self._ssl)
            _, connection = await asyncio.wait_for(opening, TIMEOUT_S)
        except OSError:
            self._num_opening -= 1
            if not self._open and not self._num_opening:
                # Nothing is left that could send what waits.
                while self._waiting:
                    self._fail_first("cannot connect")
            return
        self._num_opening -= 1
        self._open.add(connection)
        if self._waiting:
            connection.send(self._waiting.popleft())
        else:
            self._idle.append(connection)

    def _fail_first(self, failure: str) -> None:
        self.failures[failure] += 1
        self._on_answer(Answer(query=self._waiting.popleft(), failure=failure))


class _Connection(asyncio.Protocol):
    """One HTTP/1.1 connection that carries one request at a time."""

    def __init__(self, client: Client, loop: asyncio.AbstractEventLoop) -> None:
        self._client, self._loop = client, loop
        self._query: Query | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._start_response()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def send(self, query: Query) -> None:
        assert self._transport
        self._query = query
        self._timer = self._loop.call_later(TIMEOUT_S, self.abort)
        self._transport.write(query.request)

    def abort(self) -> None:
        assert self._transport
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.abort()

    def connection_lost(self, _error: Exception | None) -> None:
        self._client.closed(self)
        if self._query is not None:
            self._finish("connection closed")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if not self._parser.should_keep_alive():
            self._client.closed(self)
        self._finish("" if status == 200 else f"status {status}")

    def _finish(self, failure: str) -> None:
        assert self._query
        assert self._timer
        self._timer.cancel()
        answer = Answer(query=self._query, body=b"".join(self._body), headers=tuple(self._headers), failure=failure)
        self._query = None
        self._start_response()
        self._client.finish(self, answer)

    def _start_response(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._headers: list[tuple[bytes, bytes]] = []


async def _thread_time() -> float:
    return time.thread_time()
