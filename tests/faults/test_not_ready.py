"""Every fault of a bundle or a device makes the service not ready, with a reason that names the fault."""

import asyncio
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.engine.generation.events import GenerationParams
from service.engine.generation.sampler import Sampling
from service.engine.generation.stream import complete
from service.engine.repository.repository import Repository
from service.engine.runner import Runner
from service.engine.sessions.session import Session
from service.errors import EkibenError
from tests.service.bundles import write_bundle
from tests.service.engine.versions import (
    NAME,
    join_timed_out_calls,
    loader,
    publish,
    publish_broken,
    row,
    slow_graph,
    wait_until,
    wrong_golden,
)


def one_changed_byte(root: Path) -> None:
    publish_broken(root, 1)


def changed_golden(root: Path) -> None:
    publish(root, 1, files=wrong_golden(1))


def wider_tolerance(root: Path) -> None:
    manifest = root / NAME / publish(root, 1) / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"atol": 1e-05', '"atol": 0.005', 1))


def tighter_tolerance(root: Path) -> None:
    exact = {"atol": 0.0, "rtol": 0.0, "measured": 0.0}
    publish(root, 1, tolerance={"logits": exact, "probabilities": exact})


def hanging_graph(root: Path) -> None:
    publish(root, 0, files={"model.onnx": slow_graph(1 << 20)})


def no_current(root: Path) -> None:
    publish(root, 1)
    (root / NAME / "current").unlink()


def empty_folder(root: Path) -> None:
    (root / ".drafts").mkdir()


FAULTS: dict[Callable[[Path], None], str] = {
    one_changed_byte: "model.onnx has sha256 ",
    changed_golden: "golden case ",
    wider_tolerance: "manifest.json was changed: its content has version ",
    tighter_tolerance: "away from the PyTorch model (atol 0, rtol 0)",
    hanging_graph: "VERIFYING hangs: no result within 1 s",
    no_current: "no file `current`",
    empty_folder: "no model folder in ",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_makes_the_model_not_ready_and_is_named_in_the_reason(
    fault: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fault(tmp_path)
    expected = FAULTS[fault]
    hang_s = 1.0 if fault is hanging_graph else 20.0
    repository = Repository(tmp_path, loader(timeout_s=hang_s), poll_s=0.02)
    with caplog.at_level(logging.ERROR):
        repository.start()
        wait_until(lambda: expected in (repository.not_ready_reason() or ""))
    assert not repository.ready
    assert expected in caplog.text
    for model in repository.list_models():
        assert model["state"] == "FAILED"
        assert expected in model["reason"]
        with pytest.raises(EkibenError) as caught:
            repository.get(NAME)
        assert (caught.value.slug, caught.value.detail) == ("not-ready", model["reason"])
    repository.close()
    join_timed_out_calls("replay_golden")


def test_a_faulty_model_is_not_ready_and_the_other_model_is_served(tmp_path: Path) -> None:
    write_bundle(tmp_path, "series-classifier")
    publish_broken(tmp_path, 1)
    repository = Repository(tmp_path, loader())
    repository.refresh()
    assert "model.onnx has sha256" in (repository.not_ready_reason() or "")
    assert repository.get("tiny-series").manifest.name == "tiny-series"


@pytest.mark.parametrize("fault", ["wrong", "hangs", "raises"])
def test_a_device_that_fails_while_serving_is_not_ready_until_it_is_verified_again(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A patched session simulates the fault of the device; the fault ends when the patch is removed."""
    version = publish(tmp_path, 1)
    timeout_s = 1.5 if fault == "hangs" else 20.0
    repository = Repository(tmp_path, loader(timeout_s=timeout_s), poll_s=0.02, health_check_s=0.02)
    repository.start()
    wait_until(lambda: repository.ready)
    wait_until(lambda: repository.describe_model(NAME)["heartbeat"]["passed"] >= 2)
    original_run, released = Session.run, threading.Event()

    def run(self: Session, inputs: Any, outputs: Any = None) -> Any:
        match fault:
            case "wrong":
                return {name: value + 1 for name, value in original_run(self, inputs, outputs).items()}
            case "hangs":
                released.wait(60)
        raise RuntimeError("CUDA failure 700")

    expected = {
        "wrong": "golden case ",
        "hangs": "hangs: no result within 1.5 s",
        "raises": "CUDA failure 700",
    }
    with monkeypatch.context() as patch:
        patch.setattr(Session, "run", run)
        wait_until(lambda: not repository.ready)
        reason = repository.not_ready_reason() or ""
        assert reason.startswith(f"{NAME}/{version}: health check: ")
        assert expected[fault] in reason
        assert (row(repository)["state"], row(repository)["reason"]) == ("FAILED", reason)
        assert reason in caplog.text
        with pytest.raises(EkibenError):
            repository.get(NAME)
    released.set()
    repository.load(NAME)
    assert repository.ready
    wait_until(lambda: row(repository)["draining"] == [])
    repository.close()


class UnwarmedRunner(Runner):
    """Has no timing of any shape, so it runs every batch on its threads."""

    def grid(self, session: Session) -> list[tuple[int, int]]:
        return []


async def classify(runner: Runner, session: Session) -> None:
    """Six requests of one row, one after the other, and one of 7 rows."""
    for num_rows in (1, 1, 1, 1, 1, 1, 7):
        await runner.run(session, {"images": np.zeros((num_rows, 4, 4), np.uint8)})


async def generate(runner: Runner, session: Session) -> None:
    """Seven prompts, which share their steps."""
    sampling = Sampling(seed=0, temperature=0.0, top_k=0, top_p=1.0)
    await complete(runner.generate(session, str, [[3]] * 7, GenerationParams(max_tokens=4, sampling=sampling)))


@pytest.mark.parametrize(
    ("family", "send_requests", "runner_type"),
    [
        ("image-classifier", classify, UnwarmedRunner),
        ("image-classifier", classify, Runner),
        ("language-model", generate, Runner),
    ],
    ids=["on a thread", "on the event loop", "in a decoder"],
)
def test_a_request_that_hangs_in_the_engine_is_not_ready(
    family: str, send_requests: Any, runner_type: type[Runner], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The golden cases still pass: only the request with 7 rows hangs."""
    version = write_bundle(tmp_path, family).name
    runner = runner_type(threads=1)
    repository = Repository(tmp_path, loader(timeout_s=1.5, planner=runner), poll_s=0.02, health_check_s=0.02)
    repository.start()
    wait_until(lambda: repository.ready)
    (name,) = (row["name"] for row in repository.list_models())
    session, released = repository.get(name).session, threading.Event()
    original_compute = session.compute

    def compute(inputs: Any, names: Any) -> Any:
        if 7 in next(iter(inputs.values())).shape[:2]:
            released.wait(60)
        return original_compute(inputs, names)

    monkeypatch.setattr(session, "compute", compute)
    client = threading.Thread(target=lambda: asyncio.run(send_requests(runner, session)), daemon=True)
    client.start()
    wait_until(lambda: not repository.ready)
    reason = repository.not_ready_reason() or ""
    assert reason.startswith(
        f"{name}/{version}: health check: CPUExecutionProvider hangs: a request has been computed for longer than 1.5 s"
    )
    released.set()
    client.join(20)
    repository.load(name)
    assert repository.ready
    repository.close()
    runner.close()


def test_close_does_not_wait_for_a_hanging_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    released, entered = threading.Event(), threading.Event()

    def run(*_: Any) -> Any:
        entered.set()
        released.wait(60)
        raise RuntimeError("the test is over")

    monkeypatch.setattr(Session, "run", run)
    publish(tmp_path, 1)
    repository = Repository(tmp_path, loader(timeout_s=60))
    repository.start()
    assert entered.wait(20)
    closer = threading.Thread(target=repository.close, kwargs={"timeout_s": 0.1})
    closer.start()
    closer.join(20)
    assert not closer.is_alive()
    assert not released.is_set()
    assert row(repository)["state"] == "VERIFYING"
    released.set()
    repository.close()
