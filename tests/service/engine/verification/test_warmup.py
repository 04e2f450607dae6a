"""Warm-up runs every shape on the session and reports the times to the batch planner."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from service.bundle import Bundle
from service.contract.heads import LanguageModelHead
from service.engine.generation.kv_cache import token_bytes
from service.engine.limits import Limits
from service.engine.runner import Runner
from service.engine.sessions.device import Device
from service.engine.sessions.key_values import DeviceKeyValues
from service.engine.sessions.session import Session
from service.engine.verification import warmup
from service.engine.verification.shapes import warmup_shapes
from service.engine.verification.warmup import MAX_TIMED_RUNS, SLOW_FIRST_RUN_S, TIMING_BUDGET_S, warm_up
from tests.service.bundles import FAMILIES
from tests.service.engine.gpu.host_memory import HostMemory


class FakePlanner:
    """A batch planner with fixed shapes that counts the observations of each shape."""

    def __init__(self, shapes: Sequence[tuple[int, int]]) -> None:
        self.shapes = shapes
        self.limits = Limits(max_generations=32)
        self.observed: Counter[tuple[int, int]] = Counter()

    def grid(self, session: Session) -> Sequence[tuple[int, int]]:
        return self.shapes

    def observe(self, session: Session, num_rows: int, num_steps: int, seconds: float) -> None:
        assert seconds > 0
        self.observed[num_rows, num_steps] += 1


class RecordingSession(Session):
    """A session that records the shapes of its runs."""

    def run(self, inputs: Any, outputs: Any = None) -> Any:
        self.shapes = [*getattr(self, "shapes", []), tuple(inputs["series"].shape[:2])]
        return super().run(inputs, outputs)


@pytest.mark.parametrize("family", FAMILIES)
def test_warm_up_runs_every_shape(family: str, sessions: dict[str, Session]) -> None:
    assert warm_up(sessions[family]) == len(warmup_shapes(sessions[family].manifest))


def test_warm_up_runs_the_batches_of_the_planner(bundles: dict[str, Bundle]) -> None:
    bundle = bundles["series-classifier"]
    session = RecordingSession(bundle.model, manifest=bundle.manifest, device="cpu")
    planner = FakePlanner([(1, 1), (5, 12), (8, 3)])
    assert warm_up(session, planner) == 3
    assert set(session.shapes) == {(1, 1), (5, 12), (8, 3)}
    assert set(planner.observed) == {(1, 1), (5, 12), (8, 3)}
    assert all(1 <= count <= MAX_TIMED_RUNS for count in planner.observed.values()), (
        "the first run of a shape is not reported"
    )
    assert len(session.shapes) == sum(planner.observed.values()) + 3


def test_language_models_are_warmed_up_without_the_planner(sessions: dict[str, Session]) -> None:
    planner = FakePlanner([])
    assert warm_up(sessions["language-model"], planner) == len(warmup_shapes(sessions["language-model"].manifest))
    assert not planner.observed


def test_on_a_gpu_a_language_model_decodes_as_many_rows_as_are_admitted(
    sessions: dict[str, Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = sessions["language-model"]
    largest = session.manifest.limits.max_items
    assert largest < 32
    shapes, memory = list[tuple[int, ...]](), HostMemory()

    class Recorded(DeviceKeyValues):
        def extend(self, session: Session, ids_BS: Any, lengths_B: Any) -> Any:
            shapes.append(ids_BS.shape)
            return super().extend(session, ids_BS, lengths_B)

    monkeypatch.setattr(warmup, "create_key_values", lambda head, _device: Recorded(head, memory))
    num_shapes = warm_up(session, FakePlanner([]))
    monkeypatch.setattr(session, "device", "cuda")
    more = warm_up(session, FakePlanner([])) - num_shapes
    assert max(shapes) == (32, 1), "as the service computes it, with keys and values on the device"
    assert memory.num_bytes == 0
    capacities = len({shape.past for shape in warmup_shapes(session.manifest)})
    assert more == capacities * len([size for size in (4, 8, 16, 32) if size > largest])
    assert {shape.batch for shape in warmup_shapes(session.manifest, Limits(max_generations=32))} >= {1, largest, 32}


def test_no_more_rows_are_warmed_up_than_the_keys_and_values_of_which_fit(sessions: dict[str, Session]) -> None:
    manifest = sessions["language-model"].manifest
    assert isinstance(manifest.head, LanguageModelHead)
    row_bytes = 64 * token_bytes(manifest.head)
    decoded = warmup_shapes(manifest, Limits(max_generations=32, kv_cache_bytes=20 * row_bytes))
    largest = {shape.past: shape.batch for shape in decoded}
    assert (largest[64], largest[128]) == (20, 10)
    assert min(largest.values()) >= manifest.limits.max_items


@pytest.mark.parametrize("family", FAMILIES)
def test_warm_up_runs_the_batches_of_a_runner(family: str, sessions: dict[str, Session]) -> None:
    runner = Runner()
    num_shapes = warm_up(sessions[family], runner)
    if family != "language-model":
        assert num_shapes == len(runner.grid(sessions[family]))
    runner.close()


def test_models_without_steps_are_observed_with_0_steps(sessions: dict[str, Session]) -> None:
    planner = FakePlanner([(2, 0)])
    warm_up(sessions["image-classifier"], planner)
    assert set(planner.observed) == {(2, 0)}


def test_every_shape_of_the_manifest_is_run(bundles: dict[str, Bundle]) -> None:
    bundle = bundles["series-classifier"]
    session = RecordingSession(bundle.model, manifest=bundle.manifest, device="cpu")
    warm_up(session)
    assert set(session.shapes) == {(shape.batch, shape.steps) for shape in warmup_shapes(bundle.manifest)}


class TimedSession:
    """A session whose runs take a fixed time on a clock of its own."""

    def __init__(self, session: Session, *, run_s: float, device: Device = "cpu") -> None:
        self.manifest = session.manifest
        self.device = device
        self.num_runs = 0
        self.now = 0.0
        self._run_s = run_s

    def run(self, inputs: Any) -> None:
        self.now += self._run_s
        self.num_runs += 1

    def perf_counter(self) -> float:
        return self.now


@pytest.mark.parametrize(("run_s", "num_timed"), [(0.0, 3), (2.0**-10, 3), (TIMING_BUDGET_S / 2, 1), (60.0, 1)])
def test_a_shape_is_timed_three_times_or_until_its_budget_is_spent(
    run_s: float, num_timed: int, sessions: dict[str, Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = TimedSession(sessions["image-classifier"], run_s=run_s)
    observed: list[float] = []
    planner = FakePlanner([(2, 0)])
    monkeypatch.setattr(planner, "observe", lambda *args: observed.append(args[3]))
    monkeypatch.setattr(warmup, "time", session)
    warm_up(session, planner)  # type: ignore[arg-type]
    assert observed == [run_s] * num_timed


@pytest.mark.parametrize(
    ("device", "run_s", "num_runs"),
    [("cpu", SLOW_FIRST_RUN_S, 1), ("cpu", SLOW_FIRST_RUN_S * 0.99, 3), ("cuda", 60.0, 2)],
)
def test_a_slow_first_run_on_a_cpu_is_the_only_one(
    device: Device, run_s: float, num_runs: int, sessions: dict[str, Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU, the first run of a shape also selects kernels, so it tells nothing of the next ones."""
    session = TimedSession(sessions["image-classifier"], run_s=run_s, device=device)
    monkeypatch.setattr(warmup, "time", session)
    warm_up(session, FakePlanner([(2, 0)]))  # type: ignore[arg-type]
    assert session.num_runs == num_runs
