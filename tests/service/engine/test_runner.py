"""Work on the runner's threads: answers come back, the event loop stays free, the gone take their queue with them."""

import asyncio
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from service.engine.runner import Runner
from service.engine.session import Session
from service.errors import EkibenError
from tests.service.bundles import FAMILIES, example_inputs


@pytest.fixture
def runner() -> Iterator[Runner]:
    runner = Runner(threads=1)
    yield runner
    runner.close()


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_the_session_s(family: str, sessions: dict[str, Session], runner: Runner) -> None:
    inputs = example_inputs(family)
    expected, answer = sessions[family].run(inputs), asyncio.run(runner.run(sessions[family], inputs))
    assert list(answer) == list(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(answer[name], value)


def test_errors_reach_the_caller(sessions: dict[str, Session], runner: Runner) -> None:
    with pytest.raises(ValueError, match=r"inputs \[\], expected"):
        asyncio.run(runner.run(sessions["image-classifier"], {}))


def test_each_caller_gets_its_own_answer(sessions: dict[str, Session], runner: Runner) -> None:
    session = sessions["image-classifier"]
    inputs = [example_inputs("image-classifier", seed=seed) for seed in range(50)]

    async def all_at_once() -> list[dict[str, np.ndarray]]:
        return await asyncio.gather(*(runner.run(session, one, ["logits"]) for one in inputs))

    for one, answer in zip(inputs, asyncio.run(all_at_once()), strict=True):
        np.testing.assert_array_equal(answer["logits"], session.run(one)["logits"])


def test_no_more_than_the_threads_compute_at_once() -> None:
    runner, running, seen = Runner(threads=2), 0, []
    lock, both = threading.Lock(), threading.Barrier(2, timeout=30)

    def work() -> None:
        nonlocal running
        with lock:
            running += 1
            seen.append(running)
        both.wait()  # passes only if two compute at once
        with lock:
            running -= 1

    async def six() -> None:
        await asyncio.gather(*(runner.call(work) for _ in range(6)))

    asyncio.run(six())
    runner.close()
    assert max(seen) == 2


def test_the_loop_stays_free_and_the_cancelled_are_never_computed(runner: Runner) -> None:
    began, go_on, computed = threading.Event(), threading.Event(), []

    def slow() -> str:
        began.set()
        assert go_on.wait(30)
        return "slow"

    async def scenario() -> None:
        first = asyncio.create_task(runner.call(slow))
        while not began.is_set():
            await asyncio.sleep(0)  # the loop runs while the thread computes
        queued = [asyncio.create_task(runner.call(computed.append, i)) for i in range(3)]
        await asyncio.sleep(0)
        queued[1].cancel()
        await asyncio.sleep(0)
        go_on.set()
        assert await first == "slow"
        await asyncio.gather(*queued, return_exceptions=True)
        assert queued[1].cancelled()

    asyncio.run(scenario())
    assert computed == [0, 2]


def test_what_has_begun_ends_without_harm_when_its_caller_is_gone(runner: Runner) -> None:
    began, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def slow() -> None:
        began.set()
        assert go_on.wait(30)
        ended.set()

    async def scenario() -> None:
        task = asyncio.create_task(runner.call(slow))
        while not began.is_set():
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()
        assert await runner.call(lambda: "next") == "next"

    asyncio.run(scenario())
    assert ended.is_set()


def test_closed_is_closed(runner: Runner) -> None:
    runner.close()
    runner.close()
    with pytest.raises(EkibenError, match="shutting down") as caught:
        asyncio.run(runner.call(lambda: None))
    assert caught.value.slug == "not-ready"
