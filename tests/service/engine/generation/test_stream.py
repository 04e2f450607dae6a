"""Events reach their request once, and every row ends once."""

import asyncio
import time

import pytest

from service.engine.context import RequestContext
from service.engine.generation.events import GenerationEvent
from service.engine.generation.stream import Generation, RowFailedError, complete, deliver_all
from service.errors import EkibenError


class Row:
    def __init__(self, index: int) -> None:
        self.index = index
        self.is_cancelled = False


def event(index: int, text: str = "", **fields: object) -> GenerationEvent:
    return GenerationEvent(index=index, text=text, tokens=(), **fields)  # type: ignore[arg-type]


def generation_of(num_rows: int, timeout_s: float = 30.0) -> Generation:
    generation = Generation(RequestContext(time.monotonic(), timeout_s, 30.0, "", ""), is_streamed=True)
    generation.start([Row(index) for index in range(num_rows)])  # type: ignore[misc]
    return generation


def test_iteration_ends_after_the_last_event_of_every_row() -> None:
    async def scenario() -> list[tuple[int, str]]:
        with generation_of(2) as generation:
            asyncio.get_running_loop().call_later(
                0.01, deliver_all, [(generation, event(1, "a", finish_reason="stop"))]
            )
            asyncio.get_running_loop().call_later(0.02, deliver_all, [(generation, event(0, "b"))])
            late = [(generation, event(0, "c", finish_reason="length")), (generation, event(0, "never"))]
            asyncio.get_running_loop().call_later(0.03, deliver_all, late)
            return [(one.index, one.text) async for one in generation]

    assert asyncio.run(scenario()) == [(1, "a"), (0, "b"), (0, "c")]


def test_a_request_without_rows_has_no_events() -> None:
    async def scenario() -> None:
        assert await complete(generation_of(0)) == []

    asyncio.run(scenario())


def test_leaving_the_block_cancels_every_row() -> None:
    async def scenario() -> None:
        with generation_of(2) as generation:
            pass
        assert all(row.is_cancelled for row in generation.rows)

    asyncio.run(scenario())


def test_at_the_deadline_every_unfinished_row_ends_with_a_timeout() -> None:
    async def scenario() -> None:
        with generation_of(2, timeout_s=0.05) as generation:
            generation.deliver(event(0, "done", finish_reason="stop"))
            events = [one async for one in generation]
        assert [(one.index, one.text) for one in events] == [(0, "done"), (1, "")]
        assert events[1].error is not None
        assert events[1].error.slug == "timeout"
        assert all(row.is_cancelled for row in generation.rows)

    asyncio.run(scenario())


def test_the_first_row_that_failed_fails_the_request() -> None:
    async def scenario() -> None:
        generation = generation_of(2)
        generation.deliver(event(1, error=EkibenError("internal", "it broke")))
        with pytest.raises(RowFailedError, match="row 1: it broke") as caught:
            await complete(generation)
        assert caught.value.error.slug == "internal"

    asyncio.run(scenario())


def test_events_for_an_event_loop_that_has_ended_are_dropped() -> None:
    async def scenario() -> Generation:
        return generation_of(1)

    deliver_all([(asyncio.run(scenario()), event(0, "late"))])
