"""A device task hands over what it returns or raises, unless its caller is gone."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from service.engine.scheduling.device_task import DeviceTask


def result_of(function: Callable[..., Any], *args: Any, cancel: bool = False) -> Any:
    async def scenario() -> Any:
        task = DeviceTask(function, args, asyncio.get_running_loop(), deadline=9.0)
        if cancel:
            task.cancel()
        task.run()()
        return await task.future if task.future.done() else "nothing"

    return asyncio.run(scenario())


def test_a_new_task_has_its_deadline_and_is_not_cancelled() -> None:
    async def scenario() -> tuple[float, bool]:
        task = DeviceTask(divmod, (7, 2), asyncio.get_running_loop(), deadline=9.0)
        return task.deadline, task.is_cancelled

    assert asyncio.run(scenario()) == (9.0, False)


def test_results_and_errors_are_handed_over() -> None:
    assert result_of(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        result_of(divmod, 7, 0)


def test_a_cancelled_task_does_nothing() -> None:
    done: list[int] = []
    assert result_of(done.append, 1, cancel=True) == "nothing"
    assert done == []


def test_a_result_after_the_deadline_is_dropped() -> None:
    async def scenario() -> None:
        task = DeviceTask(lambda: "late", (), asyncio.get_running_loop(), deadline=9.0)
        hand_over = task.run()
        task.fail(TimeoutError("deadline"))
        hand_over()
        with pytest.raises(TimeoutError, match="deadline"):
            await task.future

    asyncio.run(scenario())


def test_a_panic_becomes_an_exception() -> None:
    class Panic(BaseException):
        """Libraries written in Rust raise what is no Exception."""

    def panic() -> None:
        raise Panic("index out of bounds")

    with pytest.raises(RuntimeError, match="Panic: index out of bounds"):
        result_of(panic)
