"""A model that serves is checked again and again; one that is wrong, slow or raising is reported in words."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.engine.repository.entry import Entry
from service.engine.repository.health_check import Heartbeat
from service.engine.repository.loader import Loader
from service.engine.repository.registry import Catalog
from service.engine.repository.version import Version
from service.engine.sessions.session import Session
from tests.service.engine.versions import NAME, accept, publish, until

Reports = list[tuple[str, str | None, str]]


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """One READY model."""
    loader = Loader(device="cpu", intra_op_threads=1, stage_s=20, replay_requests=accept, batching=None)
    number = publish(tmp_path, 1)
    *_, ready = loader.stages(Version(name=NAME, version=number), tmp_path / NAME / number)
    catalog = Catalog("")
    catalog.add(NAME, required=True)
    catalog.update(NAME, lambda entry: replace(entry, serving=ready))
    return catalog


@pytest.fixture
def reports() -> Reports:
    return []


@pytest.fixture
def heartbeat(catalog: Catalog, reports: Reports) -> Heartbeat:
    return Heartbeat(catalog, lambda *report: reports.append(report), round_s=0.02, bound_s=20)


def break_session(catalog: Catalog, run: Callable[..., Any]) -> str | None:
    """From now on the session that serves computes as `run` does; returns the version."""
    serving = catalog[NAME].serving
    assert serving is not None
    assert serving.model is not None
    serving.model.session.run = run  # type: ignore[method-assign]  # the fault of a device, which tests cannot have
    return serving.version


def test_checks_go_through_all_golden_cases(catalog: Catalog, heartbeat: Heartbeat, reports: Reports) -> None:
    serving = catalog[NAME].serving
    assert serving is not None
    assert heartbeat.last(NAME, serving.version) is None
    seen = []
    right = Session.run

    def run(inputs: Any, outputs: Any = None) -> Any:
        seen.append(len(inputs["images"]))
        assert serving.model is not None
        return right(serving.model.session, inputs, outputs)

    break_session(catalog, run)
    for _ in range(4):
        heartbeat.check(NAME)
    beat = heartbeat.last(NAME, serving.version)
    assert beat is not None
    assert (beat.passed, seen, reports) == (4, [1, 3, 1, 3], [])
    assert heartbeat.last(NAME, "another") is None


def test_a_wrong_answer_is_reported(catalog: Catalog, heartbeat: Heartbeat, reports: Reports) -> None:
    def run(inputs: Any, outputs: Any = None) -> Any:
        return {name: np.zeros((len(inputs["images"]), 3), np.float32) for name in outputs}

    version = break_session(catalog, run)
    heartbeat.check(NAME)
    [(name, reported, reason)] = reports
    assert (name, reported) == (NAME, version)
    assert reason.startswith(f"{NAME}/{version}: heartbeat: ")
    assert "golden case 0" in reason
    assert "away from the PyTorch model" in reason


def test_an_answer_that_does_not_come_is_reported(catalog: Catalog, reports: Reports) -> None:
    heartbeat = Heartbeat(catalog, lambda *report: reports.append(report), round_s=0.02, bound_s=0.3)
    gate = threading.Event()
    version = break_session(catalog, lambda *_: gate.wait(60))
    heartbeat.check(NAME)
    gate.set()
    [(_, _, reason)] = reports
    expected = f"{NAME}/{version}: heartbeat: CPUExecutionProvider hangs: no result within 0.3 s"
    assert reason == expected


def test_an_exception_is_reported(catalog: Catalog, heartbeat: Heartbeat, reports: Reports) -> None:
    def run(*_: Any) -> Any:
        raise RuntimeError("CUDA failure 700")

    break_session(catalog, run)
    heartbeat.check(NAME)
    assert reports[0][2].endswith("a golden case failed on CPUExecutionProvider: RuntimeError: CUDA failure 700")


def test_a_request_that_hangs_is_reported(catalog: Catalog, reports: Reports) -> None:
    """The goldens are still answered."""
    model = catalog[NAME].model
    assert model is not None
    heartbeat = Heartbeat(catalog, lambda *report: reports.append(report), round_s=0.02, bound_s=20)
    model.session._since[0] = time.monotonic() - 19  # a thread that is in a run for so long
    heartbeat.check(NAME)
    assert reports == []
    model.session._since[0] -= 2
    heartbeat.check(NAME)
    assert reports[0][2].endswith("hangs: a request has been computed for longer than 20 s")


def test_what_does_not_serve_is_not_checked(catalog: Catalog, heartbeat: Heartbeat, reports: Reports) -> None:
    break_session(catalog, lambda *_: None)
    catalog.update(NAME, Entry.retired)
    heartbeat.check(NAME)
    heartbeat.check("nobody")
    assert reports == []


def test_it_goes_round_until_it_is_told_to_stop(catalog: Catalog, heartbeat: Heartbeat) -> None:
    closing = threading.Event()
    thread = threading.Thread(target=heartbeat.run, args=(closing,))
    thread.start()
    serving = catalog[NAME].serving
    assert serving is not None
    until(lambda: getattr(heartbeat.last(NAME, serving.version), "passed", 0) >= 3)
    closing.set()
    thread.join(20)
    assert not thread.is_alive()


def test_it_holds_no_version_between_two_checks(catalog: Catalog, heartbeat: Heartbeat) -> None:
    closing = threading.Event()
    thread = threading.Thread(target=heartbeat.run, args=(closing,))
    thread.start()
    catalog.update(NAME, Entry.retired)
    until(lambda: not catalog.update(NAME, Entry.swept).draining)
    closing.set()
    thread.join(20)


def test_a_model_that_is_removed_while_it_is_looked_for_is_not_checked(
    catalog: Catalog, heartbeat: Heartbeat, reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    contains = Catalog.__contains__

    def remove_at_once(self: Catalog, name: str) -> bool:
        found = contains(self, name)
        self.remove(name)
        return found

    monkeypatch.setattr(Catalog, "__contains__", remove_at_once)
    heartbeat.check(NAME)
    catalog.remove(NAME)
    heartbeat.check(NAME)
    assert not reports
