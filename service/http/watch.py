"""Work for a client, as long as the client is there.

Invariant: when the client leaves, the task that works for it is cancelled, so nothing that it waits for is computed; an
answer that is there at once costs no watcher.
"""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from service.http.asgi import ClientGoneError, Receive

GRACE_S = 0.005  # most answers are there sooner

Result = TypeVar("Result")


async def while_connected(answer: Awaitable[Result], receive: Receive) -> Result:
    """Await `answer` in this task; raises ClientGoneError when `receive` says that the client left before it."""
    watch = _Watch(receive)
    try:
        return await answer
    except asyncio.CancelledError:
        if watch.client_gone:
            watch.task.uncancel()
            raise ClientGoneError from None
        raise
    finally:
        watch.end()


class _Watch:
    __slots__ = ("_receive", "_timer", "_watcher", "client_gone", "task")

    def __init__(self, receive: Receive) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None, "every request has a task of its own"
        self.task = task
        self.client_gone = False
        self._receive = receive
        self._watcher: asyncio.Task[None] | None = None
        self._timer = loop.call_later(GRACE_S, self._begin)

    def end(self) -> None:
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()

    def _begin(self) -> None:
        self._watcher = asyncio.create_task(self._look())

    async def _look(self) -> None:
        if (await self._receive())["type"] == "http.disconnect":
            self.client_gone = True
            self.task.cancel()
