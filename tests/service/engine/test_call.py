"""A call hands over what its function gives or raises, unless nobody waits."""

import asyncio
from typing import Any

import pytest

from service.engine.call import Call


def outcome(function: Any, *args: Any, leave: bool = False) -> Any:
    async def scenario() -> Any:
        call = Call(function, args, asyncio.get_running_loop(), deadline=9.0)
        if leave:
            call.settled()
        call.run()()
        return await call.future if call.future.done() else "nothing"

    return asyncio.run(scenario())


def test_results_and_errors_are_handed_over() -> None:
    assert outcome(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        outcome(divmod, 7, 0)


def test_nothing_is_done_for_who_is_gone() -> None:
    done: list[int] = []
    assert outcome(done.append, 1, leave=True) == "nothing"
    assert done == []


def test_an_answer_after_the_deadline_is_dropped() -> None:
    async def scenario() -> None:
        call = Call(lambda: "late", (), asyncio.get_running_loop(), deadline=9.0)
        hand_over = call.run()
        call.fail(TimeoutError("deadline"))
        hand_over()
        with pytest.raises(TimeoutError, match="deadline"):
            await call.future

    asyncio.run(scenario())
