"""A model is READY only after its goldens and request cases were reproduced; otherwise it has a reason."""

import dataclasses
import json
import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from service.bundle import RequestCase
from service.engine.repository.reconciler import ModelReconciler
from service.engine.repository.repository import Repository
from service.engine.sessions.model import Model
from service.errors import BundleError, EkibenError
from tests.service.bundles import FAMILIES, NAMES, bundle_files, example_inputs, golden_cases, write_bundle
from tests.service.engine.versions import NAME, loader, publish, row, set_candidate, wait_until

CANDIDATE = f"{NAME}@candidate"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for family in FAMILIES:
        write_bundle(tmp_path, family)
    return tmp_path


def version(root: Path, name: str) -> str:
    return (root / name / "current").read_text().strip()


def states(repository: Repository) -> dict[str, str]:
    return {summary["name"]: summary["state"] for summary in repository.list_models()}


def test_all_families_become_ready_and_compute(root: Path) -> None:
    repository = Repository(root, loader())
    assert not repository.ready
    repository.refresh()
    assert repository.ready
    assert repository.not_ready_reason() is None
    assert states(repository) == {NAMES[family]: "READY" for family in sorted(FAMILIES, key=NAMES.__getitem__)}
    for family in FAMILIES:
        model = repository.get(NAMES[family])
        assert model.manifest.name == NAMES[family]
        assert set(model.session.run(example_inputs(family))) == {output.name for output in model.manifest.outputs}
    tokenizer = repository.get("tiny-texts").tokenizer
    assert tokenizer is not None
    assert tokenizer.encode("the train").ids == [1, 2]
    assert repository.get("tiny-images").tokenizer is None


def test_descriptions_are_json_with_local_measurements(root: Path) -> None:
    repository = Repository(root, loader())
    repository.refresh()
    for summary in repository.list_models():
        details = json.loads(orjson.dumps(repository.describe_model(summary["name"])))
        assert details.items() >= summary.items()
        assert (details["state"], details["reason"], details["device"]) == ("READY", None, "cpu")
        assert details["provider"] == "CPUExecutionProvider"
        assert set(details["parity"]) == {output["name"] for output in details["outputs"]}
        for parity in details["parity"].values():
            assert (parity["atol"], parity["rtol"], parity["measured_at_export"]) == (1e-5, 1e-4, 2e-7)
            assert 0 <= parity["measured_here"] <= 1e-5
        assert details["provenance"]["metrics"] == {"test_accuracy": 0.5}
        assert details["invariance"]["level"] == "bitwise"
    assert repository.describe_model("tiny-texts")["labels"] == ["travel", "food", "sport"]
    assert repository.describe_model("tiny-texts")["limits"] == {"max_items": 8, "max_steps": 6, "axes": {}}


def test_measured_here_reflects_the_goldens(tmp_path: Path) -> None:
    first, second = golden_cases("image-classifier")
    shifted = second.outputs["logits"].copy()
    shifted[0, 0] += np.float32(4e-6)
    golden = (first, dataclasses.replace(second, outputs={**second.outputs, "logits": shifted}))
    write_bundle(tmp_path, "image-classifier", files=bundle_files("image-classifier", golden=golden))
    repository = Repository(tmp_path, loader())
    repository.refresh()
    parity = repository.describe_model("tiny-images")["parity"]
    assert parity["logits"]["measured_here"] == pytest.approx(4e-6, abs=1e-6)
    assert parity["probabilities"]["measured_here"] < 1e-6


def test_not_ready_with_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / ".half-written").mkdir()
    (tmp_path / "README").write_text("no bundle")
    repository = Repository(tmp_path, loader())
    assert "has not been scanned yet" in (repository.not_ready_reason() or "")
    repository.refresh()
    assert not repository.ready
    assert repository.not_ready_reason() == f"no model folder in {tmp_path}: export a model first"
    assert repository.list_models() == []


def test_not_ready_without_a_folder(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "nowhere", loader())
    repository.refresh()
    assert not repository.ready
    assert "cannot read the folder of bundles" in (repository.not_ready_reason() or "")


def test_not_ready_with_a_broken_bundle_although_the_others_serve(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = next(path for path in (root / "tiny-series").iterdir() if path.is_dir())
    content = bytearray((folder / "model.onnx").read_bytes())
    content[100] ^= 1
    (folder / "model.onnx").write_bytes(content)
    repository = Repository(root, loader())
    with caplog.at_level(logging.ERROR):
        repository.refresh()
    reason = repository.describe_model("tiny-series")["reason"]
    assert states(repository)["tiny-series"] == "FAILED"
    assert reason.startswith(f"tiny-series/{folder.name}: model.onnx has sha256")
    assert repository.not_ready_reason() == reason
    assert reason in caplog.text
    with pytest.raises(EkibenError, match=r"model\.onnx has sha256") as caught:
        repository.get("tiny-series")
    assert caught.value.slug == "not-ready"
    assert repository.get("tiny-images").manifest.name == "tiny-images"


def test_a_golden_mismatch_names_output_case_and_difference(tmp_path: Path) -> None:
    first, second = golden_cases("series-classifier")
    other = dataclasses.replace(first, outputs={**first.outputs, "logits": first.outputs["logits"] + np.float32(0.5)})
    write_bundle(tmp_path, "series-classifier", files=bundle_files("series-classifier", golden=(other, second)))
    repository = Repository(tmp_path, loader())
    repository.refresh()
    described = repository.describe_model("tiny-series")
    assert described["state"] == "FAILED"
    assert "golden case 0" in described["reason"]
    assert "'logits' on CPUExecutionProvider is 0.5 away from the PyTorch model" in described["reason"]


def test_request_cases_are_replayed_by_the_callable(root: Path) -> None:
    replayed: list[str] = []

    def replay(model: Model, cases: Sequence[RequestCase]) -> None:
        if model.manifest.name == "tiny-tags":
            raise BundleError("tiny-tags: case 0: /predictions/0/label: expected 'low', got 'high'")
        replayed.append(model.manifest.name)

    repository = Repository(root, loader(replay))
    repository.refresh()
    assert replayed == [name for name in sorted(NAMES.values()) if name != "tiny-tags"]
    assert repository.not_ready_reason() == "tiny-tags: case 0: /predictions/0/label: expected 'low', got 'high'"


def test_any_exception_becomes_the_reason(root: Path) -> None:
    def broken(model: Model, cases: Sequence[RequestCase]) -> None:
        raise ZeroDivisionError("by zero")

    repository = Repository(root, loader(broken))
    repository.refresh()
    assert set(states(repository).values()) == {"FAILED"}
    assert (
        repository.describe_model("tiny-images")["reason"]
        == f"tiny-images/{version(root, 'tiny-images')}: VERIFYING failed: ZeroDivisionError: by zero"
    )


def test_an_unknown_model_raises_the_list_of_models(root: Path) -> None:
    repository = Repository(root, loader())
    repository.refresh()
    for method in (repository.get, repository.describe_model):
        with pytest.raises(EkibenError, match="no model 'mnist'; available: tiny-images, tiny-letters, ") as caught:
            method("mnist")
        assert caught.value.slug == "unknown-model"


def test_models_load_in_the_background_and_states_are_visible(root: Path) -> None:
    started, resume = threading.Semaphore(0), threading.Semaphore(0)

    def slow(model: Model, cases: Sequence[RequestCase]) -> None:
        started.release()
        assert resume.acquire(timeout=30)

    repository = Repository(root, loader(slow))
    repository.start()
    assert started.acquire(timeout=30)
    assert list(states(repository).values()) == ["VERIFYING"] + ["LOADING"] * 5
    assert (repository.not_ready_reason() or "").startswith("tiny-images is VERIFYING; tiny-letters is LOADING")
    assert repository.describe_model("tiny-images")["parity"]["logits"]["measured_here"] is not None
    letters = repository.describe_model("tiny-letters")
    assert {key: value for key, value in letters.items() if value} == {
        "name": "tiny-letters",
        "state": "LOADING",
        "device": "cpu",
        "heartbeat": {"every_s": 30.0, "passed": 0, "last": None},
    }
    with pytest.raises(EkibenError, match="tiny-images is VERIFYING"):
        repository.get("tiny-images")
    resume.release()
    assert started.acquire(timeout=30)
    assert repository.get("tiny-images").manifest.task == "classify"
    assert not repository.ready
    resume.release(10)
    repository.close()


def test_close_stops_loading_after_the_current_model(root: Path) -> None:
    started, resume = threading.Event(), threading.Event()

    def slow(model: Model, cases: Sequence[RequestCase]) -> None:
        started.set()
        assert resume.wait(30)

    repository = Repository(root, loader(slow))
    repository.start()
    assert started.wait(30)
    repository.close(timeout_s=0)
    resume.set()
    repository.close(timeout_s=30)
    assert list(states(repository).values()) == ["READY"] + ["LOADING"] * 5
    assert not repository.ready


def test_changes_are_loaded_in_the_background(tmp_path: Path) -> None:
    first = publish(tmp_path, 1)
    repository = Repository(tmp_path, loader(), poll_s=0.02, health_check_s=0.02)
    repository.start()
    wait_until(lambda: repository.ready)
    assert row(repository)["version"] == first
    second = publish(tmp_path, 2)
    wait_until(lambda: row(repository)["version"] == second)
    wait_until(lambda: row(repository)["draining"] == [])
    wait_until(lambda: repository.describe_model(NAME)["heartbeat"]["passed"] >= 1)
    repository.unload(NAME)
    wait_until(lambda: row(repository)["state"] == "UNLOADED")
    assert repository.not_ready_reason() == f"{NAME} was unloaded by request"
    with pytest.raises(EkibenError, match="was unloaded by request") as caught:
        repository.get(NAME)
    assert caught.value.slug == "not-ready"
    repository.load(NAME)
    assert repository.ready
    repository.close()
    third = publish(tmp_path, 3)
    repository.refresh()
    assert row(repository)["version"] != third, "a closed repository loads no further version"


def test_refresh_loads_a_change(tmp_path: Path) -> None:
    publish(tmp_path, 1)
    repository = Repository(tmp_path, loader())
    repository.refresh()
    second = publish(tmp_path, 2)
    repository.refresh()
    assert (row(repository)["version"], row(repository)["draining"]) == (second, [])


def test_a_candidate_is_beside_the_model_and_changes_nothing_for_it(tmp_path: Path) -> None:
    second, first = publish(tmp_path, 1), publish(tmp_path, 0)
    set_candidate(tmp_path, second)
    repository = Repository(tmp_path, loader())
    repository.refresh()
    assert states(repository) == {NAME: "READY", CANDIDATE: "READY"}
    candidates = repository.with_candidates()
    assert (repository.get(NAME).manifest.version, candidates.get(NAME).manifest.version) == (first, second)
    tally = repository.tally(repository.get(NAME), candidates.get(NAME))
    for _ in range(4):
        tally.add("different", "x")
    assert repository.list_models()[1]["comparison"]["decision"] == "stopped"
    assert repository.describe_model(CANDIDATE)["comparison"]["with"] == first
    assert candidates.get(NAME).manifest.version == first, "a stopped candidate answers nothing"
    assert "comparison" not in repository.list_models()[0]
    set_candidate(tmp_path, "0123456789ab")
    repository.refresh()
    assert repository.ready, "a candidate is never required"
    (tmp_path / NAME / "candidate").unlink()
    repository.refresh()
    assert states(repository) == {NAME: "READY"}
    assert not repository.has_candidates


def test_the_version_that_serves_and_stateful_models_have_no_candidate(tmp_path: Path) -> None:
    set_candidate(tmp_path, publish(tmp_path, 0))
    stateful = write_bundle(tmp_path, "series-tagger")
    other = write_bundle(tmp_path, "series-tagger", summary="the same, under another version")
    (stateful.parent / "current").write_text(stateful.name)
    (stateful.parent / "candidate").write_text(other.name)
    repository = Repository(tmp_path, loader())
    repository.refresh()
    assert set(states(repository).values()) == {"READY"}
    assert len(states(repository)) == 4
    assert [repository.compared_versions(name) for name in (NAME, NAMES["series-tagger"], "absent")] == [None] * 3
    assert repository.with_candidates().get(NAMES["series-tagger"]).manifest.version == stateful.name


def test_load_and_unload_need_no_start(tmp_path: Path) -> None:
    publish(tmp_path, 1)
    repository = Repository(tmp_path, loader())
    repository.load(NAME)
    assert repository.ready
    repository.unload(NAME)
    assert row(repository)["state"] == "DRAINING"
    repository.close()


def test_a_watch_that_fails_is_logged_and_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path, 1)
    repository = Repository(tmp_path, loader(), poll_s=0.02)
    start_loads, failures = ModelReconciler.start_loads, [RuntimeError("can't start new thread")] * 2

    def fail_twice(*args: Any) -> None:
        if failures:
            raise failures.pop()
        start_loads(*args)

    monkeypatch.setattr(ModelReconciler, "start_loads", fail_twice)
    repository.start()
    wait_until(lambda: repository.ready)
    repository.close()
    assert caplog.text.count("the folder of bundles could not be watched") == 2
