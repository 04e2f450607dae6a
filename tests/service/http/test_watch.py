"""Work ends when its client leaves or its body takes too long, and only then."""

import asyncio
import time

import pytest

from service.errors import EkibenError
from service.http import watch
from service.http.watch import Watch
from service.http.wire.messages import ClientDisconnectedError


class Client:
    """A client that leaves when told to."""

    method, path, query = "POST", "/x", ""

    def __init__(self) -> None:
        self.received_at = time.monotonic()
        self.left = asyncio.Event()
        self.looked = 0

    def header(self, _: str) -> str:
        return ""

    async def body(self, _: int) -> bytes:
        return b""

    def disconnected(self) -> asyncio.Future[None]:
        self.looked += 1
        return asyncio.ensure_future(self._until_gone())

    async def _until_gone(self) -> None:
        await self.left.wait()


class Scene:
    """Work for a client that goes on until `done`."""

    def __init__(self, body_timeout_s: float = 60.0, *, has_body: bool = True) -> None:
        self.watch = Watch(body_timeout_s)
        self.client = Client()
        self.cancelled = False
        self.done = asyncio.Event()
        self._has_body = has_body

    async def run(self) -> str:
        work = self.watch.begin(self.client, 60)
        work.has_body = self._has_body
        try:
            await self.done.wait()
        except asyncio.CancelledError as cancelled:
            self.cancelled = True
            raise work.why(cancelled) from None
        finally:
            self.watch.end(work)
        return "answer"

    async def looked_after(self) -> asyncio.Task[str]:
        task = asyncio.create_task(self.run())
        while not self.client.looked:
            await asyncio.sleep(watch.TICK_S)
        return task


def test_a_client_that_leaves_ends_the_work() -> None:
    async def play() -> None:
        scene = Scene()
        task = await scene.looked_after()
        scene.client.left.set()
        with pytest.raises(ClientDisconnectedError):
            await task
        assert scene.cancelled
        assert task.cancelling() == 0

    asyncio.run(play())


def test_a_client_that_stays_is_answered_and_watched_no_longer() -> None:
    async def play() -> None:
        scene = Scene()
        task = await scene.looked_after()
        scene.done.set()
        assert await task == "answer"
        scene.client.left.set()
        await asyncio.sleep(3 * watch.TICK_S)
        assert not scene.cancelled
        assert scene.client.looked == 1
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(play())


def test_a_client_that_cannot_be_watched_leaves_the_others_watched() -> None:
    class Odd(Client):
        def disconnected(self) -> asyncio.Future[None]:
            self.looked += 1
            raise RuntimeError("no way to tell")

    async def play() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context["exception"]))
        scene = Scene()
        scene.client = Odd()
        odd = await scene.looked_after()
        scene.done.set()
        assert await odd == "answer"
        scene.client, scene.done = Client(), asyncio.Event()
        task = await asyncio.wait_for(scene.looked_after(), 20)
        scene.client.left.set()
        with pytest.raises(ClientDisconnectedError):
            await task

    failures: list[BaseException] = []
    asyncio.run(play())
    assert {str(failure) for failure in failures} == {"no way to tell"}


def test_an_answer_at_once_costs_no_watcher() -> None:
    async def play() -> None:
        scene = Scene()
        scene.done.set()
        assert await scene.run() == "answer"
        await asyncio.sleep(3 * watch.TICK_S)
        assert scene.client.looked == 0

    asyncio.run(play())


def test_a_body_that_does_not_arrive_is_given_up() -> None:
    async def play() -> None:
        scene = Scene(0.01, has_body=False)
        with pytest.raises(EkibenError, match=r"did not arrive within 0.01 s") as caught:
            await scene.run()
        assert caught.value.slug == "timeout"
        assert scene.client.looked == 0

    asyncio.run(play())


def test_the_cancellation_of_somebody_else_is_none_of_a_client() -> None:
    async def play() -> None:
        scene = Scene()
        task = await scene.looked_after()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(play())


def test_one_watch_may_serve_one_event_loop_after_the_other() -> None:
    shared = Watch(0.01)
    for _ in range(2):
        scene = Scene(has_body=False)
        scene.watch = shared
        with pytest.raises(EkibenError):
            asyncio.run(scene.run())
