"""When and where jobs run: free threads start at once, urgent jobs pass patient ones, cancelled rows never."""

import asyncio
import gc
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from service.engine.batching.cost_model import WINDOW
from service.engine.limits import Limits
from service.engine.runner import Runner
from service.errors import EkibenError
from tests.service.engine.fakes import POISON, FakeSession, rows

Answer = dict[str, np.ndarray]


@pytest.fixture
def make_runner() -> Iterator[Callable[..., Runner]]:
    runners = []

    def make_runner(**options: Any) -> Runner:
        runners.append(Runner(**options))
        return runners[-1]

    yield make_runner
    for runner in runners:
        runner.close()


@pytest.fixture
def blocker() -> Iterator[threading.Event]:
    blocker = threading.Event()
    yield blocker
    blocker.set()


def start(runner: Runner, session: Any, *lengths: int, first: float = 1.0, timeout_s: float = 20.0) -> asyncio.Task:
    context = runner.new_context(timeout_s=timeout_s)
    return asyncio.create_task(runner.run(session, rows(*lengths, first=first), context=context))


async def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.001)


async def measure_slow(runner: Runner, session: FakeSession, blocker: threading.Event) -> None:
    """Batches take 3.2 s, as far as the runner knows, and a measurement is fresh; the gate is closed again."""
    for num_rows in (1, runner.limits.max_batch_items):
        for _ in range(70):
            runner.observe(session, num_rows, 8, 3.2)  # type: ignore[arg-type]
    blocker.set()
    await start(runner, session, 8)
    blocker.clear()
    session.began.clear()


def run(scenario: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(scenario)


def test_batches_form_while_a_thread_is_busy(make_runner: Callable[..., Runner], blocker: threading.Event) -> None:
    runner, session = make_runner(threads=1, limits=Limits(max_batch_items=32)), FakeSession(blocker=blocker)

    async def scenario() -> None:
        tasks = [start(runner, session, 5, first=0)]
        await wait_for(session.began.is_set)
        tasks += [start(runner, session, 5, first=i) for i in range(1, 41)]
        await wait_for(lambda: runner.counters()[0].queued_items == 40)
        blocker.set()
        await asyncio.gather(*tasks)

    run(scenario())
    assert [len(batch) for batch in session.batches] == [1, 32, 8]


def test_a_free_thread_starts_at_once(make_runner: Callable[..., Runner], blocker: threading.Event) -> None:
    runner, session = make_runner(threads=2), FakeSession(blocker=blocker)

    async def scenario() -> None:
        one = start(runner, session, 5, first=1)
        await wait_for(lambda: session.rows == [1.0])
        other = start(runner, session, 5, first=2)
        await wait_for(lambda: session.rows == [1.0, 2.0])  # while the first is still computed
        blocker.set()
        await asyncio.gather(one, other)

    run(scenario())


def test_quick_requests_of_one_turn_run_together_on_the_event_loop(make_runner: Callable[..., Runner]) -> None:
    runner, session = make_runner(threads=2), FakeSession()

    async def scenario() -> None:
        for num_rows in (1, 8):
            for _ in range(20):
                runner.observe(session, num_rows, 8, 1e-4)  # type: ignore[arg-type]
        await asyncio.gather(*(start(runner, session, 8, first=i) for i in range(8)))
        for i in range(40):
            await start(runner, session, 8, first=i)

    run(scenario())
    assert session.threads == {"MainThread"}
    assert len(session.batches[0]) == 8
    assert session.rows == [*range(8), *range(40)]
    assert runner.counters()[0].inline_batches == 41


def observe(runner: Runner, session: FakeSession, **seconds_of: float) -> None:
    """So often that it stays the usual, however long some batches take here."""
    for num_rows, seconds in seconds_of.items():
        for _ in range(WINDOW):
            runner.observe(session, int(num_rows.removeprefix("of_")), 8, seconds)  # type: ignore[arg-type]


def test_the_progress_token_changes_when_a_job_ends(
    make_runner: Callable[..., Runner], blocker: threading.Event
) -> None:
    runner, session = make_runner(threads=1), FakeSession(blocker=blocker)

    async def scenario() -> None:
        await measure_slow(runner, session, blocker)
        seen = []
        for _ in range(2):
            assert runner.progress_token() is None
            task = start(runner, session, 8)
            await wait_for(session.began.is_set)
            seen += [runner.progress_token(), runner.progress_token()]
            blocker.set()
            await task
            await wait_for(lambda: runner.progress_token() is None)
            blocker.clear()
            session.began.clear()
        assert None not in seen
        assert seen[0] == seen[1] != seen[2] == seen[3]

    run(scenario())


def test_inline_batches_leave_the_only_thread_to_urgent_work(make_runner: Callable[..., Runner]) -> None:
    runner, quick, slow = (
        make_runner(threads=1, limits=Limits(max_batch_items=1)),
        FakeSession(seconds=1e-3),
        FakeSession(),
    )

    async def scenario() -> None:
        observe(runner, quick, of_1=1e-3)
        observe(runner, slow, of_1=0.1)
        tasks = [start(runner, quick, 8, first=i) for i in range(60)]
        tasks.append(start(runner, slow, 8, timeout_s=5))
        await wait_for(slow.began.is_set)
        assert len(quick.rows) < 30
        await asyncio.gather(*tasks)

    run(scenario())
    assert slow.threads != {"MainThread"}


def test_inline_batches_do_not_delay_a_device_task(make_runner: Callable[..., Runner]) -> None:
    runner, quick = make_runner(threads=1, limits=Limits(max_batch_items=1)), FakeSession(seconds=1e-3)

    async def scenario() -> int:
        observe(runner, quick, of_1=1e-3)
        tasks = [start(runner, quick, 8, first=i) for i in range(60)]
        called = asyncio.create_task(runner.call(lambda: len(quick.rows), context=runner.new_context(timeout_s=5)))
        await asyncio.gather(*tasks)
        return await called

    assert run(scenario()) < 30


def test_threads_start_full_slow_batches_while_more_requests_arrive(make_runner: Callable[..., Runner]) -> None:
    runner, session = make_runner(threads=2, limits=Limits(max_batch_items=4)), FakeSession()

    async def scenario() -> None:
        for num_rows, seconds in ((1, 1e-4), (4, 0.5)):
            for _ in range(20):
                runner.observe(session, num_rows, 8, seconds)  # type: ignore[arg-type]
        await asyncio.gather(*(start(runner, session, 8, first=i) for i in range(8)))

    run(scenario())
    assert "MainThread" not in session.threads
    assert sorted(session.rows) == [*range(8)]


def test_slow_requests_leave_the_event_loop_free(make_runner: Callable[..., Runner], blocker: threading.Event) -> None:
    runner, session = make_runner(threads=1), FakeSession(blocker=blocker)

    async def scenario() -> None:
        for _ in range(20):
            runner.observe(session, 1, 8, 0.5)  # type: ignore[arg-type]
        task = start(runner, session, 8)
        await wait_for(session.began.is_set)
        assert not task.done()
        blocker.set()
        await task

    run(scenario())
    assert "MainThread" not in session.threads


def test_the_earliest_deadline_of_all_models_runs_first(
    make_runner: Callable[..., Runner], blocker: threading.Event
) -> None:
    runner, one, other = make_runner(threads=1), FakeSession(blocker=blocker), FakeSession()
    order: list[str] = []

    async def scenario() -> None:
        def record(task: asyncio.Task, name: str) -> asyncio.Task:
            task.add_done_callback(lambda _: order.append(name))
            return task

        tasks = [start(runner, one, 5)]
        await wait_for(one.began.is_set)
        tasks += [
            record(start(runner, other, 5, timeout_s=30), "patient"),
            record(start(runner, one, 50, timeout_s=10), "urgent"),
            record(start(runner, one, 5, timeout_s=20), "usual"),
        ]
        call = asyncio.create_task(runner.call(order.append, "call", context=runner.new_context(timeout_s=15)))
        await wait_for(lambda: sum(counters.queued_items for counters in runner.counters()) == 3)
        blocker.set()
        await asyncio.gather(call, *tasks)

    run(scenario())
    assert [name for name in order if name != "call"] == ["urgent", "usual", "patient"]
    assert order.index("call") < order.index("patient")
    assert one.rows[1:] == [1.0, 1.0]
    assert one.steps[1:] == [50, 5]


def test_queued_rows_of_a_cancelled_request_are_never_computed(
    make_runner: Callable[..., Runner], blocker: threading.Event
) -> None:
    runner, session = make_runner(threads=1), FakeSession(blocker=blocker)

    async def scenario() -> None:
        running = start(runner, session, 5, first=1)
        await wait_for(session.began.is_set)
        leaver, stayer = start(runner, session, 5, 30, first=100), start(runner, session, 5, first=200)
        await wait_for(lambda: runner.counters()[0].queued_items == 3)
        leaver.cancel()
        running.cancel()
        await asyncio.gather(leaver, running, return_exceptions=True)
        assert runner.counters()[0].queued_items == 1
        blocker.set()
        await stayer

    run(scenario())
    assert session.rows == [1.0, 200.0]
    (counters,) = runner.counters()
    assert (counters.cancelled_items, counters.executed_items, runner._executor.pending) == (2, 2, 0)


def test_a_cancelled_request_leaves_its_deadline_timer(
    make_runner: Callable[..., Runner], blocker: threading.Event
) -> None:
    runner, session = make_runner(threads=1), FakeSession(blocker=blocker)

    async def scenario() -> None:
        running = start(runner, session, 5)
        await wait_for(session.began.is_set)
        leaver = start(runner, session, 5)
        await wait_for(lambda: runner.counters()[0].queued_items == 1)
        leaver.cancel()
        await asyncio.gather(leaver, return_exceptions=True)
        [ticks] = runner._executor._timers._ticks.values()
        assert sum(map(len, ticks.values())) == 1, "that of the request that is computed"
        blocker.set()
        await running

    run(scenario())


def test_closing_waits_for_the_batch_that_is_computed(make_runner: Callable[..., Runner]) -> None:
    runner, session = make_runner(threads=1), FakeSession(seconds=0.2)

    async def scenario() -> None:
        running = start(runner, session, 5)
        await wait_for(session.began.is_set)
        runner._executor.close(30)
        assert not any(thread.is_alive() for thread in runner._executor._threads)
        await running

    run(scenario())


def test_a_request_may_be_cancelled_in_the_turn_it_arrives(make_runner: Callable[..., Runner]) -> None:
    runner, session = make_runner(threads=1), FakeSession()

    async def scenario() -> None:
        leaver = start(runner, session, 5, first=7)
        await asyncio.sleep(0)
        leaver.cancel()
        await asyncio.gather(leaver, return_exceptions=True)
        await start(runner, session, 5, first=8)

    run(scenario())
    assert session.rows == [8.0]
    assert runner._executor.pending == 0


def test_requests_expire_at_their_deadline(make_runner: Callable[..., Runner], blocker: threading.Event) -> None:
    runner, session = make_runner(threads=1), FakeSession(blocker=blocker)

    async def scenario() -> None:
        running = start(runner, session, 5, first=1, timeout_s=1)
        await wait_for(session.began.is_set)
        queued = start(runner, session, 5, first=2, timeout_s=1)
        for task in (running, queued):
            with pytest.raises(EkibenError, match="before the deadline") as caught:
                await task
            assert caught.value.slug == "timeout"
        blocker.set()
        await start(runner, session, 5, first=3)

    run(scenario())
    assert session.rows == [1.0, 3.0]
    (counters,) = runner.counters()
    assert (counters.expired_items, counters.late_items, runner._executor.pending) == (1, 1, 0)


def test_a_request_that_is_late_on_arrival_does_not_start(make_runner: Callable[..., Runner]) -> None:
    runner, session = make_runner(threads=1), FakeSession()

    async def scenario() -> None:
        with pytest.raises(EkibenError, match="before the deadline"):
            await start(runner, session, 5, timeout_s=0)

    run(scenario())
    assert session.rows == []
    assert runner._executor.pending == 0


def test_an_output_of_an_undeclared_shape_fails_its_own_request(make_runner: Callable[..., Runner]) -> None:
    runner, session = make_runner(threads=1), FakeSession()
    run_well = session.run
    session.run = lambda inputs, outputs=None: {  # type: ignore[method-assign]
        name: value if name != "logits" else np.float32(0) for name, value in run_well(inputs, outputs).items()
    }

    async def scenario() -> None:
        with pytest.raises(IndexError):
            await start(runner, session, 5)

    run(scenario())
    assert runner._executor.pending == 0


def test_a_request_that_failed_on_delivery_computes_no_more_rows(
    make_runner: Callable[..., Runner], blocker: threading.Event
) -> None:
    runner, session = make_runner(threads=1, limits=Limits(max_batch_items=2)), FakeSession()
    run_well = session.run

    def run_badly(inputs: Answer, outputs: Any = None) -> Answer:
        if session.batches:
            assert blocker.wait(30)
        return {**run_well(inputs, outputs), "logits": np.zeros(len(inputs["lengths"]), np.float32)}

    session.run = run_badly  # type: ignore[method-assign]

    async def scenario() -> None:
        with pytest.raises(IndexError):
            await start(runner, session, 5, 5, 5, 5, 5, 5)
        assert runner.counters()[0].queued_items == 0

    run(scenario())


def test_a_device_task_expires_at_its_deadline(make_runner: Callable[..., Runner], blocker: threading.Event) -> None:
    runner = make_runner(threads=1)

    async def scenario() -> None:
        with pytest.raises(EkibenError, match="before the deadline"):
            await runner.call(blocker.wait, 20, context=runner.new_context(timeout_s=0.05))

    run(scenario())
    assert runner._executor.pending == 0


def test_a_full_queue_refuses_with_a_retry_time(make_runner: Callable[..., Runner], blocker: threading.Event) -> None:
    runner, session = make_runner(threads=1, limits=Limits(max_queue_items=10)), FakeSession(blocker=blocker)

    async def scenario() -> None:
        for _ in range(20):
            runner.observe(session, 32, 8, 3.2)  # type: ignore[arg-type]
        tasks = [start(runner, session, 8)]
        await wait_for(session.began.is_set)
        tasks += [start(runner, session, 8) for _ in range(10)]
        await wait_for(lambda: runner.counters()[0].queued_items == 10)
        with pytest.raises(EkibenError, match="the queue is full; 10 items are waiting") as caught:
            await start(runner, session, 8)
        assert caught.value.slug == "overloaded"
        assert caught.value.retry_after_s == 1.0
        blocker.set()
        await asyncio.gather(*tasks)

    run(scenario())
    assert runner.counters()[0].refused == {"queue-full": 1}


def test_a_client_that_returns_on_time_is_admitted_before_new_ones(
    make_runner: Callable[..., Runner], blocker: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, session = make_runner(threads=1, limits=Limits(max_queue_items=10)), FakeSession(blocker=blocker)
    now = 1000.0
    clock = SimpleNamespace(monotonic=lambda: now)
    for module in ("scheduling.executor", "scheduling.deadline_timer", "runner"):
        monkeypatch.setattr(f"service.engine.{module}.time", clock)
    runner._executor.admission._clock = clock.monotonic

    def send(first: float) -> asyncio.Task:
        context = runner.new_context(client=f"{first}", route="/path")
        return asyncio.create_task(runner.run(session, rows(8, first=first), context=context))  # type: ignore[arg-type]

    async def scenario() -> None:
        nonlocal now
        for _ in range(20):
            runner.observe(session, 32, 8, 0.32)  # type: ignore[arg-type]
        tasks = [send(1)]
        await wait_for(session.began.is_set)
        tasks += [send(i) for i in range(2, 12)]
        await wait_for(lambda: runner.counters()[0].queued_items == 10)
        with pytest.raises(EkibenError) as caught:
            await send(100)
        assert caught.value.retry_after_s == 1.0
        for task in tasks[9:]:
            task.cancel()
        await wait_for(lambda: runner.counters()[0].queued_items == 8)
        now += 1.01
        with pytest.raises(EkibenError, match="full"):  # the last places are kept
            await send(200)
        returned = send(100)
        await wait_for(lambda: runner.counters()[0].queued_items == 9)
        blocker.set()
        await asyncio.gather(returned, *tasks[:9])

    run(scenario())
    assert 100 in session.rows
    assert 200 not in session.rows


def test_a_client_that_returns_early_is_refused_before_its_body_is_read(
    make_runner: Callable[..., Runner], blocker: threading.Event
) -> None:
    runner, session = make_runner(threads=1), FakeSession(blocker=blocker)

    async def scenario() -> None:
        await measure_slow(runner, session, blocker)
        task = start(runner, session, 8)
        await wait_for(session.began.is_set)
        assert not runner.admission.expects_retries
        context = runner.new_context(timeout_s=3, client="a", route="/path")
        with pytest.raises(EkibenError, match="deadline would be missed"):
            await runner.run(session, rows(8), context=context)  # type: ignore[arg-type]
        assert runner.admission.expects_retries
        for _ in range(2):
            with pytest.raises(EkibenError, match="deadline would be missed") as caught:
                runner.admission.try_admit(runner.new_context(timeout_s=3, client="a", route="/path"))
            assert caught.value.retry_after_s is not None
        for client, route, timeout_s in (("b", "/path", 3), ("a", "/other", 3), ("a", "/path", 30)):
            runner.admission.try_admit(runner.new_context(timeout_s=timeout_s, client=client, route=route))
        blocker.set()
        await task

    run(scenario())
    assert runner.counters()[0].refused == {"overloaded": 1, "unread": 2}


def test_a_request_that_would_be_late_is_refused_at_once(
    make_runner: Callable[..., Runner], blocker: threading.Event
) -> None:
    runner, session = make_runner(threads=1), FakeSession(blocker=blocker)

    async def scenario() -> None:
        await start(runner, session, 8) if blocker.is_set() else None
        await measure_slow(runner, session, blocker)
        tasks = [start(runner, session, 8, timeout_s=20)]
        await wait_for(session.began.is_set)
        tasks += [start(runner, session, *[8] * 20, timeout_s=20)]
        await wait_for(lambda: runner.counters()[0].queued_items == 20)
        with pytest.raises(EkibenError, match="the deadline would be missed") as caught:
            await start(runner, session, 8, timeout_s=3)
        assert caught.value.slug == "overloaded"
        assert caught.value.retry_after_s is not None
        blocker.set()
        await asyncio.gather(*tasks)

    run(scenario())
    assert runner.counters()[0].refused == {"overloaded": 1}


def test_a_closed_runner_refuses_new_requests(make_runner: Callable[..., Runner]) -> None:
    runner, session = make_runner(threads=1), FakeSession()

    async def scenario() -> None:
        await start(runner, session, 8)
        runner.close()
        with pytest.raises(EkibenError, match="shutting down") as caught:
            await start(runner, session, 8)
        assert (caught.value.slug, caught.value.retry_after_s) == ("not-ready", 1.0)

    run(scenario())
    assert runner.counters()[0].refused == {"stopping": 1}


def test_close_does_not_wait_for_a_hung_computation(blocker: threading.Event) -> None:
    runner, session = Runner(threads=1), FakeSession(blocker=blocker)

    async def scenario() -> None:
        hanging = start(runner, session, 8)
        await wait_for(session.began.is_set)
        queued = start(runner, session, 8)
        await wait_for(lambda: runner.counters()[0].queued_items == 1)
        await asyncio.to_thread(runner.close, 0.05)
        with pytest.raises(EkibenError, match="shutting down"):
            await queued
        blocker.set()
        await hanging

    run(scenario())


def test_several_event_loops_share_a_runner(make_runner: Callable[..., Runner]) -> None:
    runner, session = make_runner(threads=2), FakeSession(seconds=0.001)
    answers: dict[int, list[Answer]] = {}

    async def scenario(number: int) -> None:
        tasks = [start(runner, session, 5, first=100 * number + i) for i in range(20)]
        answers[number] = await asyncio.gather(*tasks)

    threads = [threading.Thread(target=lambda n=n: run(scenario(n))) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, given in answers.items():
        assert [answer["logits"][0, 0, 0] for answer in given] == [100 * number + i for i in range(20)]


def test_an_idle_runner_keeps_no_session_alive(make_runner: Callable[..., Runner]) -> None:
    runner, session = make_runner(threads=1), FakeSession()
    session_ref = weakref.ref(session)

    async def scenario(session: Any) -> None:
        await asyncio.gather(*(start(runner, session, 5) for _ in range(5)))

    run(scenario(session))
    del session
    end = time.monotonic() + 20
    while session_ref() is not None:  # until the thread has come back from handing out the answers
        assert time.monotonic() < end
        gc.collect()
    assert runner.counters()[0].executed_items == 5


def test_random_arrivals_and_cancellations_lose_and_leave_nothing(make_runner: Callable[..., Runner]) -> None:
    runner, session = make_runner(threads=2, limits=Limits(max_queue_items=60)), FakeSession(seconds=0.0005)
    rng = np.random.default_rng(0)
    outcomes: Counter[str] = Counter()

    async def client(number: int) -> None:
        lengths = rng.integers(1, 60, rng.integers(1, 5)).tolist()
        first = POISON if rng.random() < 0.05 else 10.0 * number
        task = start(runner, session, *lengths, first=first, timeout_s=float(rng.choice([0.002, 0.02, 20])))
        if rng.random() < 0.2:
            await asyncio.sleep(rng.random() * 0.01)
            task.cancel()
        try:
            answer = await task
        except asyncio.CancelledError:
            outcomes["cancelled"] += 1
        except EkibenError as error:
            outcomes[error.slug] += 1
        else:
            outcomes["answered"] += 1
            assert answer["logits"][:, 0, 0].tolist() == [first + i for i in range(len(lengths))]

    async def scenario() -> None:
        for _ in range(20):
            await asyncio.gather(*(client(i) for i in range(30)))
            await asyncio.sleep(0.001)
        await wait_for(lambda: not runner._executor.pending and not runner._executor.running)

    run(scenario())
    (counters,) = runner.counters()
    assert outcomes.total() == 600
    assert {"answered", "cancelled", "internal"} <= set(outcomes)
    assert set(outcomes) <= {"answered", "cancelled", "internal", "timeout", "overloaded"}
    assert (runner._executor.pending, counters.queued_items) == (0, 0)
    assert runner._executor.backlog.total_s == pytest.approx(0, abs=1e-9)
    computed = counters.executed_items + counters.failed_items
    assert counters.items == computed + counters.cancelled_items + counters.expired_items
