"""A request is aborted when its client disconnects or its body takes too long, and only then."""

import asyncio
import gc
import time
import weakref
from contextlib import suppress

import pytest

from service.errors import EkibenError
from service.http.client_watch import TICK_S, RequestSupervisor
from service.http.wire.messages import ClientDisconnectedError


class Client:
    """A client that disconnects when told to."""

    method, path, query = "POST", "/x", ""

    def __init__(self) -> None:
        self.received_at = time.monotonic()
        self.left = asyncio.Event()
        self.num_watched = 0

    def header(self, _: str) -> str:
        return ""

    async def body(self, _: int) -> bytes:
        return b""

    def disconnected(self) -> asyncio.Future[None]:
        self.num_watched += 1
        return asyncio.ensure_future(self._wait())

    async def _wait(self) -> None:
        await self.left.wait()


class Case:
    """A request that is answered when `done` is set."""

    def __init__(self, body_timeout_s: float = 60.0, *, has_body: bool = True) -> None:
        self.supervisor = RequestSupervisor(body_timeout_s)
        self.client = Client()
        self.cancelled = False
        self.done = asyncio.Event()
        self._has_body = has_body

    async def run(self) -> str:
        scope = self.supervisor.open(self.client, 60)
        scope.has_body = self._has_body
        try:
            await self.done.wait()
        except asyncio.CancelledError as cancelled:
            self.cancelled = True
            raise scope.reason(cancelled) from None
        finally:
            self.supervisor.close(scope)
        return "answer"

    async def watched(self) -> asyncio.Task[str]:
        task = asyncio.create_task(self.run())
        while not self.client.num_watched:
            await asyncio.sleep(TICK_S)
        return task


def test_requests_are_looked_at_many_times_a_second() -> None:
    assert 0 < TICK_S <= 0.05


def test_a_disconnect_cancels_the_task() -> None:
    async def scenario() -> None:
        case = Case()
        task = await case.watched()
        case.client.left.set()
        with pytest.raises(ClientDisconnectedError):
            await task
        assert case.cancelled
        assert task.cancelling() == 0

    asyncio.run(scenario())


def test_an_answered_client_is_no_longer_watched() -> None:
    async def scenario() -> None:
        case = Case()
        task = await case.watched()
        case.done.set()
        assert await task == "answer"
        case.client.left.set()
        await asyncio.sleep(3 * TICK_S)
        assert not case.cancelled
        assert case.client.num_watched == 1
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(scenario())


def test_a_client_that_cannot_be_watched_does_not_stop_watching_others() -> None:
    class Unwatchable(Client):
        def disconnected(self) -> asyncio.Future[None]:
            self.num_watched += 1
            raise RuntimeError("no way to tell")

    async def scenario() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context["exception"]))
        case = Case()
        case.client = Unwatchable()
        unwatchable = await case.watched()
        case.done.set()
        assert await unwatchable == "answer"
        case.client, case.done = Client(), asyncio.Event()
        task = await asyncio.wait_for(case.watched(), 20)
        case.client.left.set()
        with pytest.raises(ClientDisconnectedError):
            await task

    failures: list[BaseException] = []
    asyncio.run(scenario())
    assert {str(failure) for failure in failures} == {"no way to tell"}


def test_a_request_that_is_answered_at_once_is_not_watched() -> None:
    async def scenario() -> None:
        case = Case()
        case.done.set()
        assert await case.run() == "answer"
        await asyncio.sleep(3 * TICK_S)
        assert case.client.num_watched == 0

    asyncio.run(scenario())


def test_a_body_that_does_not_arrive_times_out() -> None:
    async def scenario() -> None:
        case = Case(0.01, has_body=False)
        with pytest.raises(EkibenError, match=r"did not arrive within 0.01 s") as caught:
            await case.run()
        assert caught.value.slug == "timeout"
        assert case.client.num_watched == 0

    asyncio.run(scenario())


def test_an_aborted_request_is_freed_at_once() -> None:
    """Its host would go on with the connection, and wait for it at the end of the process."""

    async def scenario() -> None:
        case = Case(0.01, has_body=False)
        client = weakref.ref(case.client)
        with suppress(EkibenError):
            await case.run()
        assert case.cancelled
        del case
        await asyncio.sleep(0)  # the event loop holds the cancellation until the task waits again
        assert client() is None

    gc.disable()
    try:
        asyncio.run(scenario())
    finally:
        gc.enable()


def test_other_cancellations_pass_through() -> None:
    async def scenario() -> None:
        case = Case()
        task = await case.watched()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())


def test_a_supervisor_may_serve_one_event_loop_after_another() -> None:
    shared = RequestSupervisor(0.01)
    for _ in range(2):
        case = Case(has_body=False)
        case.supervisor = shared
        with pytest.raises(EkibenError):
            asyncio.run(case.run())
