"""The runner returns the session's answers, keeps the event loop free, and computes nothing for cancelled callers."""

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.bundle import Bundle
from service.engine.limits import Limits
from service.engine.runner import Runner, untimed_runner
from service.engine.sessions.session import Session
from service.errors import EkibenError
from tests.service.bundles import FAMILIES, example_inputs
from tests.service.engine.fakes import POISON, FakeSession, rows
from tests.service.engine.gpu.fake_gpu import MIB, FakeGpu
from tests.service.garbage import count_cyclic_garbage


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


def test_a_batch_beyond_the_bound_of_a_gpu_is_halved_and_a_row_is_refused(
    bundles: dict[str, Bundle], runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = FakeGpu(monkeypatch, total=8000 * MIB, weights_bytes=200 * MIB, row_bytes=100 * MIB)
    bundle, inputs = bundles["image-classifier"], example_inputs("image-classifier", batch=8)
    expected = Session(bundle.model, manifest=bundle.manifest, device="cpu").run(inputs)
    session = Session(bundle.model, manifest=bundle.manifest, device="cuda", max_gpu_bytes=500 * MIB)
    np.testing.assert_allclose(asyncio.run(runner.run(session, inputs))["logits"], expected["logits"], atol=1e-5)
    assert gpu.used == 400 * MIB
    gpu.row_bytes = 1000 * MIB
    with pytest.raises(EkibenError, match="the service lacks memory now") as caught:
        asyncio.run(runner.run(session, inputs))
    assert caught.value.slug == "overloaded"
    gpu.row_bytes = 100 * MIB
    assert asyncio.run(runner.run(session, inputs))["logits"].shape == (8, 3)


def test_each_caller_gets_its_own_answer(sessions: dict[str, Session], runner: Runner) -> None:
    session = sessions["image-classifier"]
    inputs = [example_inputs("image-classifier", seed=seed) for seed in range(50)]

    async def all_at_once() -> list[dict[str, np.ndarray]]:
        return await asyncio.gather(*(runner.run(session, one, ["logits"]) for one in inputs))

    for one, answer in zip(inputs, asyncio.run(all_at_once()), strict=True):
        np.testing.assert_array_equal(answer["logits"], session.run(one)["logits"])


def test_no_more_jobs_than_threads_compute_at_once() -> None:
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


def test_the_event_loop_stays_free_and_cancelled_calls_never_run(runner: Runner) -> None:
    began, proceed, computed = threading.Event(), threading.Event(), []

    def slow() -> str:
        began.set()
        assert proceed.wait(30)
        return "slow"

    async def scenario() -> None:
        first = asyncio.create_task(runner.call(slow))
        while not began.is_set():
            await asyncio.sleep(0)  # the loop runs while the thread computes
        queued = [asyncio.create_task(runner.call(computed.append, i)) for i in range(3)]
        await asyncio.sleep(0)
        queued[1].cancel()
        await asyncio.sleep(0)
        proceed.set()
        assert await first == "slow"
        await asyncio.gather(*queued, return_exceptions=True)
        assert queued[1].cancelled()

    asyncio.run(scenario())
    assert computed == [0, 2]


def test_a_running_call_ends_after_its_caller_was_cancelled(runner: Runner) -> None:
    began, proceed, ended = threading.Event(), threading.Event(), threading.Event()

    def slow() -> None:
        began.set()
        assert proceed.wait(30)
        ended.set()

    async def scenario() -> None:
        task = asyncio.create_task(runner.call(slow))
        while not began.is_set():
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        proceed.set()
        assert await runner.call(lambda: "next") == "next"

    asyncio.run(scenario())
    assert ended.is_set()


def test_a_closed_runner_refuses_calls(runner: Runner) -> None:
    runner.close()
    runner.close()
    with pytest.raises(EkibenError, match="shutting down") as caught:
        asyncio.run(runner.call(lambda: None))
    assert caught.value.slug == "not-ready"


def rows_of(inputs: dict[str, np.ndarray], chosen: list[int]) -> dict[str, np.ndarray]:
    return {name: value[chosen] for name, value in inputs.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_of_different_requests_in_one_batch_get_their_own_answers(
    family: str, sessions: dict[str, Session], runner: Runner
) -> None:
    session = sessions[family]
    inputs = example_inputs(family, batch=60, seed=1)
    groups = [list(range(at, min(at + size, 60))) for at, size in zip(range(0, 60, 3), [1, 2, 3] * 7, strict=False)]

    async def all_at_once() -> list[dict[str, np.ndarray]]:
        return await asyncio.gather(*(runner.run(session, rows_of(inputs, group)) for group in groups))

    answers = asyncio.run(all_at_once())
    assert runner.counters()[-1].batches < len(groups)
    for group, answer in zip(groups, answers, strict=True):
        single = session.run(rows_of(inputs, group))
        assert list(answer) == list(single)
        for name, value in single.items():
            assert answer[name].shape == value.shape
            for i, row in enumerate(group):
                where = slice(inputs["lengths"][row]) if value.shape[1:2] == (5,) and "lengths" in inputs else ...
                np.testing.assert_allclose(answer[name][i][where], value[i][where], rtol=1e-5, atol=1e-6)


requests = st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=9), min_size=1, max_size=12)


@given(requests, st.sets(st.integers(0, 40), max_size=4))
@settings(deadline=None, max_examples=40)
def test_answers_come_in_order_and_a_bad_row_fails_its_own_request_alone(
    requests: list[list[int]], poisoned: set[int]
) -> None:
    session, runner = FakeSession(), Runner(threads=2)
    sent, number = [], 0
    for lengths in requests:
        inputs = rows(*lengths, first=number, seed=number)
        bad = [i for i in range(len(lengths)) if number + i in poisoned]
        inputs["series"][bad, 0, 0] = POISON
        sent.append((inputs, bad))
        number += len(lengths)

    async def all_at_once() -> list[Any]:
        calls = (runner.run(session, inputs, items="/sequences") for inputs, _ in sent)  # type: ignore[arg-type]
        return await asyncio.gather(*calls, return_exceptions=True)

    for (inputs, bad), answer in zip(sent, asyncio.run(all_at_once()), strict=True):
        if bad:
            assert isinstance(answer, EkibenError)
            assert answer.slug == "internal"
            assert [fault.pointer for fault in answer.faults] == [f"/sequences/{row}" for row in bad]
            continue
        assert answer["logits"].shape == (*inputs["series"].shape[:2], 3)
        for row, length in enumerate(inputs["lengths"]):
            sums = np.cumsum(inputs["series"][row, :length], axis=0)
            np.testing.assert_array_equal(answer["logits"][row, :length], sums[:, [0, 0, 1]])
        np.testing.assert_array_equal(answer["next_h"], inputs["h"] + 1)
        np.testing.assert_array_equal(answer["next_c"], inputs["c"] + 2)
    runner.close()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused_by_row(bad: float, runner: Runner) -> None:
    inputs = rows(3, 4, 5)
    inputs["series"][1, 2, 0] = bad
    with pytest.raises(EkibenError, match="NaN or infinity in 1 of 3 items") as caught:
        asyncio.run(runner.run(FakeSession(), inputs, items="/sequences"))  # type: ignore[arg-type]
    assert caught.value.slug == "invalid-request"
    assert [fault.pointer for fault in caught.value.faults] == ["/sequences/1"]


def test_rows_that_are_not_finite_are_named_whatever_their_batch(runner: Runner) -> None:
    session, lengths = FakeSession(), (3, 60, 4, 50, 3)  # never in one batch: too much of it would be padding
    inputs = rows(*lengths)
    inputs["series"][[1, 4], 0, 1] = np.nan
    with pytest.raises(EkibenError, match="NaN or infinity in 2 of 5 items") as caught:
        asyncio.run(runner.run(session, inputs, items="/sequences"))  # type: ignore[arg-type]
    assert [fault.pointer for fault in caught.value.faults] == ["/sequences/1", "/sequences/4"]
    (counters,) = runner.counters()
    assert counters.items == counters.executed_items + counters.failed_items == 5


def test_counters_add_up(runner: Runner) -> None:
    session = FakeSession()
    bad = rows(4, first=POISON)

    async def scenario() -> None:
        await runner.run(session, rows(8, 10, 30))  # type: ignore[arg-type]
        with pytest.raises(EkibenError):
            await runner.run(session, bad)  # type: ignore[arg-type]

    asyncio.run(scenario())
    (counters,) = runner.counters()
    assert (counters.model, counters.version) == (session.manifest.name, session.manifest.version)
    assert (counters.requests, counters.items, counters.executed_items, counters.failed_items) == (2, 4, 3, 1)
    assert (counters.batches, counters.bisected_batches) == (3, 1)
    assert (counters.steps, counters.padded_steps) == (8 + 10 + 30 + 4, 2)
    assert (counters.queued_items, counters.compute_s.count, counters.queue_s.count) == (0, 3, 3)


def test_each_version_of_a_model_has_its_own_counters(runner: Runner, sessions: dict[str, Session]) -> None:
    families = ["image-classifier", "image-classifier", "text-classifier"]
    for family in families:
        asyncio.run(runner.run(sessions[family], example_inputs(family)))
    counted = [(one.model, one.version, one.requests) for one in runner.counters()]
    manifests = [sessions[family].manifest for family in families[1:]]
    assert counted == [
        (manifest.name, manifest.version, num_requests)
        for manifest, num_requests in zip(manifests, (2, 1), strict=True)
    ]


def test_a_request_that_arrives_after_its_deadline_is_not_computed(runner: Runner) -> None:
    session, context = FakeSession(), runner.new_context(received_at=time.monotonic() - 2, timeout_s=1)
    with pytest.raises(EkibenError, match="no answer before the deadline") as caught:
        asyncio.run(runner.run(session, rows(5), context=context))  # type: ignore[arg-type]
    assert caught.value.slug == "timeout"
    assert session.batches == []
    (counters,) = runner.counters()
    assert (counters.requests, counters.refused) == (0, {"late": 1})


def test_by_default_one_batch_is_computed_at_a_time() -> None:
    runner, release = Runner(), threading.Event()
    began: list[int] = []

    def work(number: int) -> None:
        began.append(number)
        assert release.wait(30)

    async def scenario() -> None:
        assert runner.progress_token() is None
        first, second = (asyncio.create_task(runner.call(work, number)) for number in range(2))
        while not began:
            await asyncio.sleep(0.001)
        assert runner.progress_token() is not None, "no other computation can start"
        release.set()
        await asyncio.gather(first, second)

    asyncio.run(scenario())
    runner.close()
    assert began == [0, 1]


def test_a_context_has_the_default_timeout_and_no_client_unless_told_otherwise() -> None:
    runner, before = Runner(limits=Limits(timeout_s=7.0)), time.monotonic()
    context = runner.new_context()
    assert before <= context.received_at <= time.monotonic()
    assert context.deadline == context.received_at + 7.0
    assert (context.client, context.route) == ("", "")
    given = runner.new_context(received_at=5.0, timeout_s=2.0, client="1.2.3.4", route="/x")
    assert (given.received_at, given.deadline, given.client, given.route) == (5.0, 7.0, "1.2.3.4", "/x")


def test_the_grid_covers_every_possible_batch(runner: Runner, sessions: dict[str, Session]) -> None:
    assert runner.grid(sessions["image-classifier"]) == [(1, 0), (2, 0), (4, 0), (8, 0)]
    grid = runner.grid(FakeSession(max_steps=500))  # type: ignore[arg-type]
    assert {rows for rows, steps in grid if steps == 500} == {1, 2, 4, 8, 16}  # 16 x 500 is all that a batch holds
    assert {rows for rows, steps in grid if steps == 8} == {1, 2, 4, 8, 16, 32, 48}


def test_the_grid_holds_every_length_bucket(runner: Runner) -> None:
    session = FakeSession(max_steps=48)
    session.length_buckets = (8, 24, 48)  # type: ignore[attr-defined]
    assert {steps for _, steps in runner.grid(session)} == {8, 24, 48}  # type: ignore[arg-type]


class Poisonous:
    """A session that fails whenever row 7 of `inputs` is in the batch."""

    def __init__(self, session: Session, poison: np.ndarray) -> None:
        self.manifest, self.device = session.manifest, session.device
        self._session = session
        self._poison = poison

    def run(self, inputs: dict[str, np.ndarray], outputs: Any = None) -> dict[str, np.ndarray]:
        first = next(iter(inputs.values()))
        width = self._poison.shape[0]
        if any((row[:width] == self._poison[: len(row)]).all() for row in first):
            raise RuntimeError("poisoned")
        return self._session.run(inputs, outputs)


HARMS = ("the model fails", "malformed", "not finite")  # whole numbers are always finite
WHOLE = ("image-classifier", "text-classifier")


@pytest.mark.parametrize(
    ("family", "harm"),
    [(family, harm) for family in FAMILIES for harm in HARMS if not (harm == "not finite" and family in WHOLE)],
)
def test_one_bad_request_of_32_does_not_harm_the_others(
    family: str, harm: str, sessions: dict[str, Session], runner: Runner
) -> None:
    inputs = example_inputs(family, batch=32, seed=3)
    if "lengths" in inputs:
        inputs["lengths"][:] = 5
    name, first = next(iter(inputs.items()))
    first[7] = (np.arange(first[7].size) % 3).reshape(first[7].shape)
    requests = [rows_of(inputs, [row]) for row in range(32)]
    session: Any = sessions[family]
    if harm == "the model fails":
        session = Poisonous(session, first[7])
    elif harm == "malformed":
        requests[7][name] = requests[7][name].astype(np.float16)
    else:
        key = next(key for key, value in requests[7].items() if value.dtype == np.float32)
        requests[7][key][0].flat[0] = np.nan

    async def all_at_once() -> list[Any]:
        return await asyncio.gather(*(runner.run(session, one) for one in requests), return_exceptions=True)

    answers = asyncio.run(all_at_once())
    bad = answers[7]
    assert isinstance(bad, ValueError if harm == "malformed" else EkibenError)
    if isinstance(bad, EkibenError):
        assert bad.slug == ("internal" if harm == "the model fails" else "invalid-request")
        assert [fault.pointer for fault in bad.faults] == ["/0"]
    for row in [row for row in range(32) if row != 7]:
        for key, value in sessions[family].run(rows_of(inputs, [row])).items():
            np.testing.assert_allclose(answers[row][key], value, rtol=1e-5, atol=1e-6)


def test_failed_requests_leave_no_garbage(runner: Runner) -> None:
    """The tracebacks of their errors would keep their inputs alive until the collector runs."""
    session = FakeSession()

    async def fail(times: int) -> None:
        for _ in range(times):
            with pytest.raises(EkibenError):
                await runner.run(session, rows(3, first=POISON))  # type: ignore[arg-type]

    async def garbage() -> int:
        await fail(2)
        return await count_cyclic_garbage(fail(50))

    assert asyncio.run(garbage()) < 50


def test_requests_of_an_untimed_runner_have_hours() -> None:
    runner = untimed_runner()
    assert runner.limits.timeout_s >= 3600
    runner.close()


def test_a_panic_fails_its_own_call_only(runner: Runner) -> None:
    """Libraries written in Rust raise what is no Exception."""

    class Panic(BaseException):
        pass

    def panic() -> None:
        raise Panic("index out of bounds")

    async def both() -> str:
        with pytest.raises(RuntimeError, match="Panic: index out of bounds"):
            await runner.call(panic)
        return await runner.call(lambda: "next")

    assert asyncio.run(both()) == "next"


def test_host_work_delays_no_device_work(runner: Runner) -> None:
    started, release = threading.Event(), threading.Event()

    def block() -> str:
        started.set()
        release.wait()
        return threading.current_thread().name

    async def main() -> None:
        blocked = asyncio.create_task(runner.call_host(block))
        while not started.is_set():
            await asyncio.sleep(0.001)
        assert await runner.call(lambda: threading.current_thread().name) == "runner-0"
        assert not blocked.done()
        late = runner.new_context(timeout_s=0.01)
        with pytest.raises(EkibenError, match="no answer before the deadline"):
            await runner.call_host(block, context=late)
        release.set()
        assert await blocked == "host-0"

    asyncio.run(main())


def test_requests_are_counted_by_their_end(runner: Runner, sessions: dict[str, Session]) -> None:
    session, inputs = sessions["image-classifier"], example_inputs("image-classifier")
    started_at = time.monotonic()
    for _ in range(3):
        asyncio.run(runner.run(session, inputs))
    with pytest.raises(ValueError, match="expected"):
        asyncio.run(runner.run(session, {}))
    late = runner.new_context(received_at=started_at - 10, timeout_s=1)
    with pytest.raises(EkibenError):
        asyncio.run(runner.run(session, inputs, context=late))
    [counters] = runner.counters()
    assert (counters.succeeded.count, counters.failed.count) == (3, 2)
    assert 0 < counters.succeeded.sum_s < time.monotonic() - started_at
    assert started_at <= counters.last_request_at <= time.monotonic()
