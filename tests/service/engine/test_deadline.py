"""A deadline is its task's own, and reaches what the task awaits."""

import asyncio
import time

from service.engine.deadline import deadline, until


def test_nobody_set_one() -> None:
    assert deadline() is None


def test_it_reaches_what_the_task_awaits_and_no_other_task() -> None:
    async def inner() -> float | None:
        return deadline()

    async def request(timeout_s: float | None) -> tuple[float | None, float]:
        now = time.monotonic()
        if timeout_s is not None:
            until(now + timeout_s)
        await asyncio.sleep(0)
        return await asyncio.create_task(inner()), now

    async def scenario() -> list[tuple[float | None, float]]:
        return await asyncio.gather(request(1.0), request(None), request(50.0))

    (one, began_one), (none, _), (other, began_other) = asyncio.run(scenario())
    assert one is not None
    assert other is not None
    assert 1.0 <= one - began_one < 20
    assert none is None
    assert 50.0 <= other - began_other < 70
