"""A serving model is checked periodically; wrong results, timeouts and exceptions are reported."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.engine.repository.entry import ModelEntry
from service.engine.repository.health_check import HealthCheck
from service.engine.repository.registry import ModelRegistry
from service.engine.repository.version import Version
from service.engine.sessions.session import Session
from tests.service.engine.versions import NAME, loader, publish, wait_until

Reports = list[tuple[str, str | None, str]]


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry:
    """One READY model."""
    number = publish(tmp_path, 1)
    *_, ready = loader().stages(Version(name=NAME, version=number), tmp_path / NAME / number)
    registry = ModelRegistry("")
    registry.add(NAME, required=True)
    registry.update(NAME, lambda entry: replace(entry, serving=ready))
    return registry


@pytest.fixture
def reports() -> Reports:
    return []


@pytest.fixture
def health_check(registry: ModelRegistry, reports: Reports) -> HealthCheck:
    return HealthCheck(
        registry=registry, report_failure=lambda *report: reports.append(report), round_s=0.02, timeout_s=20
    )


def break_session(registry: ModelRegistry, run: Callable[..., Any]) -> str | None:
    """Replace `run` of the serving session and return its version."""
    serving = registry[NAME].serving
    assert serving is not None
    assert serving.model is not None
    serving.model.session.run = run  # type: ignore[method-assign]
    return serving.version


def test_checks_rotate_through_all_golden_cases(
    registry: ModelRegistry, health_check: HealthCheck, reports: Reports
) -> None:
    serving = registry[NAME].serving
    assert serving is not None
    assert health_check.last_result(NAME, serving.version).passed == 0
    batch_sizes = []
    original_run = Session.run

    def run(inputs: Any, outputs: Any = None) -> Any:
        batch_sizes.append(len(inputs["images"]))
        assert serving.model is not None
        return original_run(serving.model.session, inputs, outputs)

    break_session(registry, run)
    for _ in range(4):
        health_check.check(NAME)
    result = health_check.last_result(NAME, serving.version)
    assert (result.passed, batch_sizes, reports) == (4, [1, 3, 1, 3], [])
    assert result.at is not None
    assert health_check.last_result(NAME, "another").passed == 0


def test_a_wrong_result_is_reported(registry: ModelRegistry, health_check: HealthCheck, reports: Reports) -> None:
    def run(inputs: Any, outputs: Any = None) -> Any:
        return {name: np.zeros((len(inputs["images"]), 3), np.float32) for name in outputs}

    version = break_session(registry, run)
    health_check.check(NAME)
    [(name, reported, reason)] = reports
    assert (name, reported) == (NAME, version)
    assert reason.startswith(f"{NAME}/{version}: health check: ")
    assert "golden case 0" in reason
    assert "away from the PyTorch model" in reason


def test_a_run_that_hangs_is_reported(registry: ModelRegistry, reports: Reports) -> None:
    health_check = HealthCheck(
        registry=registry, report_failure=lambda *report: reports.append(report), round_s=0.02, timeout_s=0.3
    )
    gate = threading.Event()
    version = break_session(registry, lambda *_: gate.wait(60))
    health_check.check(NAME)
    gate.set()
    [(_, _, reason)] = reports
    expected = f"{NAME}/{version}: health check: CPUExecutionProvider hangs: no result within 0.3 s"
    assert reason == expected


def test_an_exception_is_reported(registry: ModelRegistry, health_check: HealthCheck, reports: Reports) -> None:
    def run(*_: Any) -> Any:
        raise RuntimeError("CUDA failure 700")

    break_session(registry, run)
    health_check.check(NAME)
    assert reports[0][2].endswith("health check: CPUExecutionProvider failed: RuntimeError: CUDA failure 700")


def test_a_request_that_hangs_is_reported(
    registry: ModelRegistry, reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The golden cases still pass."""
    model = registry[NAME].model
    assert model is not None
    health_check = HealthCheck(
        registry=registry, report_failure=lambda *report: reports.append(report), round_s=0.02, timeout_s=20
    )
    monkeypatch.setattr(model.session, "longest_run_s", lambda: 19.0)
    health_check.check(NAME)
    assert reports == []
    monkeypatch.setattr(model.session, "longest_run_s", lambda: 21.0)
    health_check.check(NAME)
    assert reports[0][2].endswith("hangs: a request has been computed for longer than 20 s")


def test_a_draining_model_is_not_checked(registry: ModelRegistry, health_check: HealthCheck, reports: Reports) -> None:
    break_session(registry, lambda *_: None)
    registry.update(NAME, ModelEntry.start_draining)
    health_check.check(NAME)
    health_check.check("nobody")
    assert reports == []


def test_checks_continue_until_closing(registry: ModelRegistry, health_check: HealthCheck) -> None:
    closing = threading.Event()
    thread = threading.Thread(target=health_check.run, args=(closing,))
    thread.start()
    serving = registry[NAME].serving
    assert serving is not None
    wait_until(lambda: health_check.last_result(NAME, serving.version).passed >= 3)
    closing.set()
    thread.join(20)
    assert not thread.is_alive()


def test_no_version_is_held_between_checks(registry: ModelRegistry, health_check: HealthCheck) -> None:
    closing = threading.Event()
    thread = threading.Thread(target=health_check.run, args=(closing,))
    thread.start()
    registry.update(NAME, ModelEntry.start_draining)
    wait_until(lambda: not registry.update(NAME, ModelEntry.drop_unloaded).draining)
    closing.set()
    thread.join(20)


def test_a_removed_model_is_not_checked(registry: ModelRegistry, health_check: HealthCheck, reports: Reports) -> None:
    registry.remove(NAME)
    health_check.check(NAME)
    assert not reports


class CountedClosing(threading.Event):
    """An event that is set after a number of waits, which it records."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.waits: list[float | None] = []
        self._count = count

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout)
        return len(self.waits) >= self._count


def test_checks_are_spread_over_the_round(registry: ModelRegistry, reports: Reports) -> None:
    health_check = HealthCheck(
        registry=registry, report_failure=lambda *report: reports.append(report), round_s=30.0, timeout_s=20
    )
    registry.add("another", required=False)
    closing = CountedClosing(5)
    health_check.run(closing)
    assert closing.waits == [15.0] * 5
    for name in registry.names():
        registry.remove(name)
    closing = CountedClosing(3)
    health_check.run(closing)
    assert closing.waits == [30.0] * 3
