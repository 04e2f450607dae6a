"""The reconciler follows changes in the folder of bundles while models serve."""

import gc
import logging
import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from service.bundle import RequestCase, open_bundle
from service.engine.process.desired_models import DesiredModels
from service.engine.process.load_slots import Slot
from service.engine.repository import reconciler
from service.engine.repository.load_records import LoadRecords, ProofBusyError
from service.engine.repository.loader import Proof, digest
from service.engine.repository.prover import SlowProofError
from service.engine.repository.reconciler import ModelReconciler
from service.engine.repository.registry import ModelRegistry
from service.engine.repository.scan import scan_model
from service.engine.sessions.model import Model
from service.errors import EkibenError
from tests.service.bundles import write_bundle
from tests.service.engine.versions import NAME, loader, publish, publish_broken, set_current, wrong_golden


class Scenario:
    """A reconciler with one READY version, polled by the test."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.first = publish(root, 1)
        self.registry = ModelRegistry("")
        self.reconciler = ModelReconciler(root, self.registry, loader())
        self.reconciler.scan()
        self.poll()

    def poll(self) -> None:
        self.reconciler.scan()
        self.reconciler.reconcile(threading.Event())
        self.reconciler.unload_drained()

    @property
    def serving(self) -> str | None:
        model = self.registry[NAME].model
        return model.manifest.version if model is not None else None

    @property
    def candidate(self) -> str | None:
        """The state and reason of the candidate, or None."""
        candidate = self.registry[NAME].candidate
        return f"{candidate.version} {candidate.state}: {candidate.reason}" if candidate is not None else None


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    scenario = Scenario(tmp_path)
    assert scenario.serving == scenario.first
    return scenario


def test_a_new_version_replaces_the_old_one_which_is_unloaded(
    scenario: Scenario, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        second = publish(scenario.root, 2)
        scenario.poll()
    assert (scenario.serving, scenario.candidate) == (second, None)
    assert scenario.registry[NAME].draining == ()
    assert f"{NAME} {second} READY" in caplog.text
    assert f"; {scenario.first} drains" in caplog.text
    assert f"{NAME} {scenario.first} UNLOADED" in caplog.text


def test_the_old_version_drains_while_a_request_holds_it(scenario: Scenario) -> None:
    held = scenario.registry[NAME].model
    publish(scenario.root, 2)
    scenario.poll()
    assert [(v.version, v.state) for v in scenario.registry[NAME].draining] == [(scenario.first, "DRAINING")]
    assert held is not None
    assert held.session.run is not None
    del held
    scenario.reconciler.unload_drained()
    assert scenario.registry[NAME].draining == ()


@pytest.mark.parametrize("fault", ["byte", "golden", "tolerance", "current", "missing"])
def test_a_broken_version_only_changes_the_reason(
    fault: str, scenario: Scenario, caplog: pytest.LogCaptureFixture
) -> None:
    reasons = {
        "byte": "model.onnx has sha256",
        "golden": "golden case",
        "tolerance": "field 'tolerance.logits.atol'",
        "current": "`current` holds 'latest'",
        "missing": "cannot read manifest.json",
    }
    match fault:
        case "byte":
            publish_broken(scenario.root, 2)
        case "golden":
            publish(scenario.root, 2, files=wrong_golden(2))
        case "tolerance":
            version = publish(scenario.root, 2)
            manifest = scenario.root / NAME / version / "manifest.json"
            manifest.write_text(manifest.read_text().replace('"atol": 1e-05', '"atol": 0.5', 1))
        case "current":
            set_current(scenario.root, "latest")
        case _:
            set_current(scenario.root, "0123456789ab")
    scenario.poll()
    assert scenario.serving == scenario.first
    assert "FAILED: " in (scenario.candidate or "")
    assert reasons[fault] in (scenario.candidate or "")
    assert reasons[fault] in caplog.text
    assert f"{scenario.first} is still being served" in caplog.text
    assert scenario.registry.not_ready_reason() is None


def test_a_failed_version_is_not_loaded_again_until_it_changes(
    scenario: Scenario, caplog: pytest.LogCaptureFixture
) -> None:
    version = publish_broken(scenario.root, 2)
    for _ in range(3):
        scenario.poll()
    assert caplog.text.count(" FAILED: ") == 1
    shutil.rmtree(scenario.root / NAME / version)
    assert publish(scenario.root, 2) == version
    scenario.poll()
    assert (scenario.serving, scenario.candidate) == (version, None)


def test_setting_current_back_discards_the_failed_candidate(scenario: Scenario) -> None:
    publish_broken(scenario.root, 2)
    scenario.poll()
    assert scenario.candidate
    set_current(scenario.root, scenario.first)
    scenario.poll()
    assert (scenario.serving, scenario.candidate) == (scenario.first, None)
    assert scenario.registry[NAME].fingerprint == scan_model(scenario.root / NAME).fingerprint, "nothing is due"


def test_setting_current_to_an_older_version_loads_it_again(scenario: Scenario) -> None:
    publish(scenario.root, 2)
    scenario.poll()
    set_current(scenario.root, scenario.first)
    scenario.poll()
    assert scenario.serving == scenario.first


def test_a_new_model_is_added_when_it_is_complete(scenario: Scenario) -> None:
    (scenario.root / "tiny-series").mkdir()
    scenario.poll()
    assert scenario.registry.get("tiny-series") is None
    assert scenario.registry.not_ready_reason() is None
    write_bundle(scenario.root, "series-classifier")
    scenario.poll()
    assert scenario.registry["tiny-series"].model is not None


def test_a_new_model_that_fails_leaves_the_service_ready(scenario: Scenario) -> None:
    folder = write_bundle(scenario.root, "series-classifier")
    (folder / "model.onnx").write_bytes(b"")
    scenario.poll()
    assert "model.onnx has 0 bytes" in (scenario.registry["tiny-series"].display_version.reason or "")
    assert scenario.registry.not_ready_reason() is None


def test_a_model_whose_folder_is_removed_is_unloaded(scenario: Scenario, caplog: pytest.LogCaptureFixture) -> None:
    write_bundle(scenario.root, "series-classifier")
    scenario.poll()
    held = scenario.registry["tiny-series"].model
    shutil.rmtree(scenario.root / "tiny-series")
    for _ in range(2):
        scenario.poll()
    assert caplog.text.count("tiny-series: folder removed; the model is no longer served") == 1
    assert scenario.registry["tiny-series"].model is None
    assert scenario.registry["tiny-series"].display_version.state == "DRAINING"
    with pytest.raises(EkibenError, match="its folder was removed") as caught:
        scenario.reconciler.load("tiny-series", None)
    assert caught.value.slug == "unknown-model"
    assert scenario.registry.not_ready_reason() is None
    del held
    scenario.poll()
    assert scenario.registry.get("tiny-series") is None
    write_bundle(scenario.root, "series-classifier")
    scenario.poll()
    assert scenario.registry["tiny-series"].model is not None


def test_models_serve_on_while_the_folder_cannot_be_read(scenario: Scenario, caplog: pytest.LogCaptureFixture) -> None:
    scenario.root.rename(scenario.root.with_name("away"))
    for _ in range(3):
        scenario.poll()
    assert (scenario.serving, scenario.candidate) == (scenario.first, None)
    assert scenario.registry.not_ready_reason() is None
    assert caplog.text.count("cannot read the folder of bundles") == 1
    scenario.root.with_name("away").rename(scenario.root)
    second = publish(scenario.root, 2)
    scenario.poll()
    assert scenario.serving == second


def test_not_ready_after_the_last_model_is_removed(scenario: Scenario) -> None:
    shutil.rmtree(scenario.root / NAME)
    scenario.poll()
    assert scenario.registry.not_ready_reason() == f"no model folder in {scenario.root}: export a model first"


def test_a_serving_version_whose_folder_is_removed_serves_on(
    scenario: Scenario, caplog: pytest.LogCaptureFixture
) -> None:
    folder = scenario.root / NAME / scenario.first
    folder.rename(scenario.root / ".away")
    for _ in range(3):
        scenario.poll()
    assert scenario.serving == scenario.first
    assert scenario.candidate is not None
    assert "cannot read manifest.json: No such file" in scenario.candidate
    assert caplog.text.count(f"{scenario.first} is still being served") == 1
    (scenario.root / ".away").rename(folder)
    scenario.poll()
    assert (scenario.serving, scenario.candidate) == (scenario.first, None)


def test_a_folder_with_an_invalid_name_is_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "lost+found").mkdir()
    scenario = Scenario(tmp_path)
    scenario.poll()
    assert scenario.registry.names() == [NAME]
    assert scenario.registry.not_ready_reason() is None
    assert caplog.text.count("'lost+found'") == 1


def test_unload_and_load(scenario: Scenario, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        scenario.reconciler.unload(NAME, None)
    assert scenario.registry[NAME].display_version.state == "DRAINING"
    scenario.poll()
    assert scenario.registry[NAME].display_version.state == "UNLOADED"
    assert scenario.registry.not_ready_reason() == f"{NAME} was unloaded by request"
    assert f"{NAME}: unloaded by request" in caplog.text
    second = publish(scenario.root, 2)
    scenario.poll()
    assert scenario.serving is None, "an unloaded model stays unloaded until it is loaded by request"
    scenario.reconciler.load(NAME, None)
    assert scenario.serving == second
    scenario.reconciler.load(NAME, None)
    assert scenario.serving == second


def test_load_adds_a_new_model_and_raises_its_failure(scenario: Scenario) -> None:
    folder = write_bundle(scenario.root, "series-classifier")
    (folder / "model.onnx").write_bytes(b"")
    with pytest.raises(EkibenError, match=r"model\.onnx has 0 bytes") as caught:
        scenario.reconciler.load("tiny-series", None)
    assert caught.value.slug == "not-ready"
    write_bundle(scenario.root, "series-classifier")
    scenario.reconciler.load("tiny-series", None)
    assert scenario.registry["tiny-series"].model is not None


def test_load_raises_the_failure_of_a_new_version_while_the_old_one_serves(scenario: Scenario) -> None:
    publish_broken(scenario.root, 2)
    with pytest.raises(EkibenError, match=r"model\.onnx has sha256"):
        scenario.reconciler.load(NAME, None)
    assert scenario.serving == scenario.first


def test_load_and_unload_refuse_unknown_models(scenario: Scenario) -> None:
    for method in (scenario.reconciler.load, scenario.reconciler.unload):
        with pytest.raises(EkibenError, match="no model 'nobody'") as caught:
            method("nobody", None)
        assert caught.value.slug == "unknown-model"


def test_load_times_out_while_the_model_is_being_loaded(tmp_path: Path) -> None:
    started, resume = threading.Event(), threading.Event()

    def block(model: Model, cases: Sequence[RequestCase]) -> None:
        started.set()
        assert resume.wait(30)

    publish(tmp_path, 1)
    reconciler = ModelReconciler(tmp_path, ModelRegistry(""), loader(block))
    loading = threading.Thread(target=reconciler.load, args=(NAME, None))
    loading.start()
    assert started.wait(30)
    with pytest.raises(EkibenError, match=f"{NAME}: another load or unload is still running after") as caught:
        reconciler.load(NAME, 0.01)
    assert caught.value.slug == "timeout"
    resume.set()
    loading.join(30)


def test_models_are_loaded_in_parallel(tmp_path: Path) -> None:
    """Each load waits until another load runs at the same time."""
    both = threading.Barrier(2)

    def meet(model: Model, cases: Sequence[RequestCase]) -> None:
        both.wait(30)

    for family in ("image-classifier", "series-classifier", "series-tagger", "image-generator"):
        write_bundle(tmp_path, family)
    registry = ModelRegistry("")
    reconciler = ModelReconciler(tmp_path, registry, loader(meet), max_parallel_loads=2)
    reconciler.scan()
    reconciler.reconcile(threading.Event())
    assert registry.not_ready_reason() is None


def test_a_version_that_fails_its_health_check_is_loaded_again_later(
    scenario: Scenario, caplog: pytest.LogCaptureFixture
) -> None:
    scenario.reconciler.report_failure(NAME, "another", "another version")
    assert scenario.serving == scenario.first
    scenario.reconciler.report_failure(NAME, scenario.first, "health check: golden case 0 is wrong")
    scenario.reconciler.report_failure(NAME, scenario.first, "health check: once more")
    assert scenario.serving is None
    assert scenario.registry.not_ready_reason() == "health check: golden case 0 is wrong"
    assert f"{NAME} {scenario.first} FAILED: health check: golden case 0 is wrong" in caplog.text
    scenario.poll()
    assert scenario.serving is None, "not at once"
    scenario.registry.update(NAME, lambda entry: replace(entry, retry_at=time.monotonic()))
    scenario.poll()
    assert scenario.serving == scenario.first
    assert scenario.registry.not_ready_reason() is None
    assert scenario.registry[NAME].retry_at is None


def test_a_slow_drain_warns_once_if_a_request_holds_the_version(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reconciler, "SLOW_DRAIN_S", -1.0)
    held = scenario.registry[NAME].model
    publish(scenario.root, 2)
    scenario.poll()
    scenario.poll()
    assert caplog.text.count(f"{scenario.first} is still held by a request") == 1
    assert scenario.registry[NAME].draining
    del held
    scenario.poll()
    assert scenario.registry[NAME].draining == ()


def test_a_slow_drain_collects_garbage_that_holds_the_version(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reconciler, "SLOW_DRAIN_S", -1.0)
    gc.disable()
    try:
        cycle: list[object] = [scenario.registry[NAME].model]
        cycle.append(cycle)
        del cycle
        publish(scenario.root, 2)
        scenario.poll()
        assert scenario.registry[NAME].draining
        scenario.poll()
    finally:
        gc.enable()
    assert scenario.registry[NAME].draining == ()
    assert "is still held" not in caplog.text


class FakeProver:
    """A prover that fails with each of these errors, then proves; records whether it was given a slow slot."""

    def __init__(self, *errors: Exception) -> None:
        self.records = LoadRecords(None)
        self.is_slow: list[bool] = []
        self._errors = list(errors)

    def prove(self, label: str, key: str, folder: Path, *, num_bytes: int, mapped_bytes: int, slot: Slot) -> Proof:
        self.is_slow.append(slot.is_slow)
        if self._errors:
            raise self._errors.pop(0)
        return Proof(digest=digest(open_bundle(folder)), device="cpu")


def test_a_proof_that_is_slow_or_busy_is_tried_again(tmp_path: Path) -> None:
    version, registry = publish(tmp_path, 1), ModelRegistry("")
    prover = FakeProver(SlowProofError(), ProofBusyError(), SlowProofError())
    reconciler = ModelReconciler(tmp_path, registry, loader(), prover=prover)  # type: ignore[arg-type]
    reconciler.scan()
    reconciler.reconcile(threading.Event())
    model = registry[NAME].model
    assert model is not None
    assert model.manifest.version == version
    assert prover.is_slow == [False, True, False, True]


def test_a_load_by_request_waits_for_a_busy_proof(tmp_path: Path) -> None:
    publish(tmp_path, 1)
    prover = FakeProver(ProofBusyError(), ProofBusyError())
    reconciler = ModelReconciler(tmp_path, ModelRegistry(""), loader(), prover=prover)  # type: ignore[arg-type]
    reconciler.load(NAME, None)
    assert prover.is_slow == [True] * 3


class Worker:
    """A reconciler that shares requests to load and unload with others, polled by the test."""

    def __init__(self, root: Path, shared: Path) -> None:
        self.registry = ModelRegistry("")
        self.reconciler = ModelReconciler(root, self.registry, loader(), desired=DesiredModels(shared))
        self.poll()

    def poll(self) -> None:
        self.reconciler.scan()
        self.reconciler.reconcile(threading.Event())

    @property
    def serves(self) -> bool:
        return self.registry[NAME].model is not None


def test_what_one_worker_is_asked_the_others_do_at_their_next_scan(tmp_path: Path) -> None:
    root, shared = tmp_path / "bundles", tmp_path / "shared"
    shared.mkdir()
    publish(root, 1)
    one, other = Worker(root, shared), Worker(root, shared)
    one.reconciler.unload(NAME, None)
    assert (one.serves, other.serves) == (False, True)
    other.poll()
    one.poll()
    assert (one.serves, other.serves) == (False, False)
    newcomer = Worker(root, shared)
    assert not newcomer.serves, "a worker that starts later is told, too"
    other.reconciler.load(NAME, None)
    for worker in (one, other, newcomer):
        worker.poll()
        assert worker.serves
    model = other.registry[NAME].model
    other.poll()
    assert other.registry[NAME].model is model, "a request is followed once"


def test_a_busy_model_follows_at_a_later_scan(tmp_path: Path) -> None:
    root, shared = tmp_path / "bundles", tmp_path / "shared"
    shared.mkdir()
    publish(root, 1)
    one, other = Worker(root, shared), Worker(root, shared)
    one.reconciler.unload(NAME, None)
    with other.reconciler._model_lock(NAME):
        other.reconciler.scan()
        assert other.serves
    other.poll()
    assert not other.serves


def test_a_request_ends_with_the_folder_of_its_model(tmp_path: Path) -> None:
    root, shared = tmp_path / "bundles", tmp_path / "shared"
    shared.mkdir()
    publish(root, 1)
    one = Worker(root, shared)
    one.reconciler.unload(NAME, None)
    shutil.rmtree(root / NAME)
    (root / "other").mkdir()
    one.poll()
    one.reconciler.unload_drained()
    publish(root, 1)
    one.poll()
    assert one.serves
    assert Worker(root, shared).serves


def test_a_request_that_the_others_cannot_be_told_is_refused(tmp_path: Path) -> None:
    root, shared = tmp_path / "bundles", tmp_path / "shared"
    publish(root, 1)
    worker = Worker(root, shared)
    for request in (worker.reconciler.load, worker.reconciler.unload):
        with pytest.raises(EkibenError, match="the other workers could not be told") as caught:
            request(NAME, None)
        assert caught.value.slug == "not-ready"
    assert worker.serves
