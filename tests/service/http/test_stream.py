"""A stream ends in its last part or in an error, and whatever ends it, its generator is closed before the request."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from service.engine.limits import Limits
from service.engine.runner import Runner
from service.errors import EkibenError
from service.http import client_watch, router
from service.http.route import InferenceRoute
from service.http.wire.messages import StreamedResponse
from tests.service.http.granian.fakes import state_with

Parts = Callable[[], AsyncGenerator[bytes, None]]


class Client:
    """A client of a route that streams `parts`; it disconnects when told to, and reads while `reads` is set."""

    def __init__(self, parts: Parts, *, timeout_s: float = 60.0) -> None:
        self.state = state_with(Runner(limits=Limits(timeout_s=timeout_s)))
        self.sent: list[Any] = []
        self.reads, self.left = asyncio.Event(), asyncio.Event()
        self.reads.set()
        self.closed = 0
        self.stops_reading_after = 0
        self._parts = parts
        self._has_body = False
        self.router = router.Router(None, state=lambda: self.state)  # type: ignore[arg-type]

    async def handle(self, *_: Any) -> StreamedResponse:
        return StreamedResponse("text/event-stream", self._watched(), lambda error: f"<{error.slug}>".encode())

    async def _watched(self) -> AsyncGenerator[bytes, None]:
        try:
            async for part in self._parts():
                yield part
        finally:
            self.closed += 1

    async def ask(self) -> None:
        scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": "/x", "query_string": b""}
        await self.router({**scope, "headers": [(b"host", b"x")], "client": None}, self._receive, self._send)

    async def _receive(self) -> Any:
        if not self._has_body:
            self._has_body = True
            return {"type": "http.request", "body": b""}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        await self.reads.wait()
        self.sent.append(message)
        if len(self.sent) == self.stops_reading_after:
            self.reads.clear()

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def counted(self) -> dict[int, int]:
        return {status: count for (_, status), count in self.state.request_metrics.responses.items()}


def run(client: Callable[[], Client], monkeypatch: pytest.MonkeyPatch, scenario: Any = None) -> Client:
    async def main() -> Client:
        made = client()
        monkeypatch.setattr(router, "find_route", lambda _: InferenceRoute(name="/x", handle=made.handle))
        await asyncio.wait_for(made.ask() if scenario is None else scenario(made), 30)
        assert made.state.request_metrics.in_flight == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return made

    return asyncio.run(main())


async def two_parts() -> AsyncGenerator[bytes, None]:
    yield b"a"
    await asyncio.sleep(0)
    yield b"b"


def test_parts_are_sent_one_by_one_and_counted_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    client = run(lambda: Client(two_parts), monkeypatch)
    assert [message.get("body") for message in client.sent] == [None, b"a", b"b", b""]
    assert [message.get("more_body", False) for message in client.sent[1:]] == [True, True, False]
    assert (client.counted, client.closed) == ({200: 1}, 1)


def test_an_error_before_the_first_part_is_a_response(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail() -> AsyncGenerator[bytes, None]:
        raise EkibenError("overloaded", "no slot", retry_after_s=2.0)
        yield b""

    client = run(lambda: Client(fail), monkeypatch)
    assert client.sent[0]["status"] == 503
    assert (b"retry-after", b"2") in client.sent[0]["headers"]
    assert (client.counted, client.closed) == ({503: 1}, 1)


@pytest.mark.parametrize(
    ("error", "part", "status"),
    [(EkibenError("timeout", "too late"), b"<timeout>", 504), (KeyError("secret"), b"<internal>", 500)],
)
def test_an_error_after_a_part_is_the_last_part(
    error: Exception, part: bytes, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail() -> AsyncGenerator[bytes, None]:
        yield b"a"
        raise error

    client = run(lambda: Client(fail), monkeypatch)
    assert client.sent[0]["status"] == 200
    assert client.body == b"a" + part
    assert client.sent[-1].get("more_body") is None
    assert (client.counted, client.closed) == ({status: 1}, 1)
    assert error.__traceback__ is None  # whoever keeps the error does not keep the request


@pytest.mark.parametrize("is_sending", [False, True], ids=["while it waits", "while it sends"])
def test_a_disconnect_closes_the_generator(is_sending: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def endless() -> AsyncGenerator[bytes, None]:
        yield b"a"
        if not is_sending:
            await asyncio.sleep(600)
        yield b"b"

    async def scenario(client: Client) -> None:
        client.stops_reading_after = 2
        asking = asyncio.create_task(client.ask())
        while len(client.sent) < 2:
            await asyncio.sleep(0)
        client.left.set()
        await asking

    client = run(lambda: Client(endless), monkeypatch, scenario)
    assert (client.body[:1], client.counted, client.closed) == (b"a", {499: 1}, 1)


def test_a_client_that_does_not_read_is_given_up_after_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_watch, "SLOW_CLIENT_S", 0.05)

    async def scenario(client: Client) -> None:
        client.reads.clear()
        await client.ask()

    client = run(lambda: Client(two_parts, timeout_s=0.05), monkeypatch, scenario)
    assert (client.sent, client.counted, client.closed) == ([], {499: 1}, 1)


def test_a_stream_is_in_flight_until_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that drains waits for the requests in flight."""
    seen: list[int] = []

    async def looking() -> AsyncGenerator[bytes, None]:
        yield b"a"
        seen.append(made[0].state.request_metrics.in_flight)
        made[0].state.closing = True
        yield b"b"

    made: list[Client] = []

    def client() -> Client:
        made.append(Client(looking))
        return made[0]

    assert run(client, monkeypatch).body == b"ab"
    assert seen == [1]
