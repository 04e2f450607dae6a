"""The owner of one device: everything that computes there goes through its threads.

Callers wait without blocking the event loop. A caller that goes away takes with it what has not begun; what has begun
runs to its end in its thread (onnxruntime has no way to stop it) and its result is dropped.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy.typing as npt

from service.bundle import Tensors
from service.engine.session import Session
from service.errors import EkibenError

Result = TypeVar("Result")


class Runner:
    def __init__(self, *, threads: int = 1) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="runner")
        self._closed = False

    async def run(
        self, session: Session, inputs: Tensors, outputs: Sequence[str] | None = None
    ) -> dict[str, npt.NDArray[Any]]:
        """`session.run` on a thread of this runner; raises what it raises."""
        return await self.call(session.run, inputs, outputs)

    async def call(self, function: Callable[..., Result], *args: Any) -> Result:
        """Any other work that belongs beside the model, such as a step of a decoder."""
        if self._closed:
            raise EkibenError("not-ready", "the service is shutting down")
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *args)

    def close(self) -> None:
        """Drop what has not begun, wait for what has; further calls are refused."""
        self._closed = True
        self._pool.shutdown(wait=True, cancel_futures=True)
