"""Work ends when its client leaves, and only then."""

import asyncio
from typing import Any

import pytest

from service.http import watch
from service.http.asgi import ClientGoneError
from service.http.watch import while_connected


class Client:
    """A client that leaves when told to."""

    def __init__(self) -> None:
        self.left = asyncio.Event()
        self.looked = 0

    async def receive(self) -> Any:
        self.looked += 1
        await self.left.wait()
        return {"type": "http.disconnect"}


class Work:
    def __init__(self) -> None:
        self.cancelled = False
        self.done = asyncio.Event()

    async def run(self) -> str:
        try:
            await self.done.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return "answer"


async def started(client: Client, work: Work) -> asyncio.Task[str]:
    task = asyncio.create_task(while_connected(work.run(), client.receive))
    while not client.looked:
        await asyncio.sleep(watch.GRACE_S)
    return task


def test_a_client_that_leaves_ends_the_work() -> None:
    async def scene() -> None:
        client, work = Client(), Work()
        task = await started(client, work)
        client.left.set()
        with pytest.raises(ClientGoneError):
            await task
        assert work.cancelled
        assert task.cancelling() == 0

    asyncio.run(scene())


def test_a_client_that_stays_is_answered_and_watched_no_longer() -> None:
    async def scene() -> None:
        client, work = Client(), Work()
        task = await started(client, work)
        work.done.set()
        assert await task == "answer"
        client.left.set()
        await asyncio.sleep(0)
        assert not work.cancelled
        assert len(asyncio.all_tasks()) <= 2  # this one, and the watcher on its way out

    asyncio.run(scene())


def test_an_answer_at_once_costs_no_watcher() -> None:
    async def at_once() -> str:
        return "answer"

    async def scene() -> None:
        client = Client()
        assert await while_connected(at_once(), client.receive) == "answer"
        await asyncio.sleep(3 * watch.GRACE_S)
        assert client.looked == 0

    asyncio.run(scene())


def test_the_cancellation_of_somebody_else_is_none_of_a_client() -> None:
    async def scene() -> None:
        client, work = Client(), Work()
        task = await started(client, work)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scene())
