"""The stages of loading a version, their results, and their failures."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnxruntime
import pytest

from service.bundle import RequestCase, open_bundle
from service.engine.process.call_timeout import CallTimeoutError
from service.engine.process.shortage import ShortageError, is_out_of_memory
from service.engine.repository.loader import Loader, Proof, digest, failure_reason
from service.engine.repository.repository import Repository
from service.engine.repository.version import Version
from service.engine.runner import Runner
from service.engine.sessions.device import Device
from service.engine.sessions.model import Model
from service.engine.verification import gpu_bound
from service.engine.verification.gpu_bound import GpuBounds
from service.errors import BundleError, DeviceError
from tests.service.bundles import example_inputs, write_bundle
from tests.service.engine.gpu.fake_gpu import MIB, FakeGpu, RealSession
from tests.service.engine.versions import (
    FAMILY,
    NAME,
    join_timed_out_calls,
    loader,
    publish,
    row,
    slow_graph,
    wrong_golden,
)


def stages(root: Path, version: str, with_loader: Loader) -> list[Version]:
    return list(with_loader.stages(Version(name=NAME, version=version), root / NAME / version))


def test_the_stages_in_order(tmp_path: Path) -> None:
    versions = stages(tmp_path, publish(tmp_path, 1), loader())
    assert [version.state for version in versions] == ["LOADING", "VERIFYING", "VERIFYING", "WARMING", "READY"]
    assert versions[0].manifest is not None
    assert [version.model is not None for version in versions] == [False, False, False, False, True]
    assert [version.measured is not None for version in versions] == [False, False, True, True, True]
    ready = versions[-1]
    assert ready.provider == "CPUExecutionProvider"
    assert ready.memory is not None
    assert ready.memory["model_bytes"] == (tmp_path / NAME / str(ready.version) / "model.onnx").stat().st_size
    assert ready.memory["grown_bytes"] >= 0
    assert ready.warmup is not None
    assert ready.warmup["shapes"] == 4
    assert ready.warmup["seconds"] > 0
    assert len(ready.golden) == 2


def test_a_load_on_a_gpu_measures_one_session_and_bounds_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = FakeGpu(monkeypatch, total=8000 * MIB, weights_bytes=200 * MIB, row_bytes=100 * MIB)
    with_gpu = replace(loader(planner=Runner()), device="cuda", gpu_bounds=GpuBounds(num_runs=2))
    versions = stages(tmp_path, publish(tmp_path, 1), with_gpu)
    assert [version.state for version in versions] == ["LOADING", "VERIFYING", "VERIFYING", "WARMING", "READY"]
    (measured, _), (serving, used_before) = gpu.sessions
    assert measured["gpu_mem_limit"] == str(8000 * MIB), "all that is free"
    assert serving == {**measured, "gpu_mem_limit": str(1980 * MIB)}
    assert measured["arena_extend_strategy"] == "kSameAsRequested"
    assert used_before == 0, "the session that was measured is closed before the next one is made"
    ready = versions[-1]
    assert ready.memory is not None
    assert (ready.memory["device_bytes"], ready.memory["max_device_bytes"]) == (1000 * MIB, 1980 * MIB)
    assert "memory in use on the GPU" in ready.memory["how"]
    assert ready.model is not None
    assert ready.model.session.provider == "CUDAExecutionProvider"


def test_a_load_on_a_cpu_makes_one_session_and_asks_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []

    def create(model: bytes, options: object, **settings: object) -> object:
        made.append(settings["providers"])
        return RealSession(model, options, **settings)

    version = publish(tmp_path, 1)
    folder = tmp_path / NAME / version
    proof = Proof(digest=digest(open_bundle(folder)), device="cpu")
    monkeypatch.setattr(onnxruntime, "InferenceSession", create)
    monkeypatch.setattr(gpu_bound, "gpu_memory", lambda: pytest.fail("there is no GPU"))
    *_, ready = loader().stages(Version(name=NAME, version=version), folder, proof)
    assert made == [[("CPUExecutionProvider", {})]]
    assert ready.memory is not None
    assert set(ready.memory) == {"model_bytes", "grown_bytes", "how"}


def test_a_version_that_exceeds_the_gpu_is_refused_while_others_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = FakeGpu(monkeypatch, total=3000 * MIB, weights_bytes=200 * MIB, row_bytes=100 * MIB)
    first = publish(tmp_path, 1)
    bounds = GpuBounds(num_runs=2)
    repository = Repository(tmp_path, replace(loader(), device="cuda", gpu_bounds=bounds), health_check_s=1e9)
    repository.refresh()
    assert repository.get(NAME).manifest.version == first
    second = publish(tmp_path, 2)
    repository.refresh()
    summary = row(repository)
    assert (summary["state"], summary["version"]) == ("READY", first)
    assert (summary["next"]["state"], summary["next"]["version"]) == ("FAILED", second)
    assert summary["next"]["reason"].startswith(
        f"{NAME}/{second} needs 1,980 MiB of the GPU for its weights and 2 runs at the same time, but 2,000 MiB of "
        "3,000 MiB are free, and loaded models may take 980 MiB of these: "
    )
    session = repository.get(NAME).session
    assert session.run(example_inputs(FAMILY, batch=8))["logits"].shape == (8, 3)
    with pytest.raises(RuntimeError, match="Available memory of") as caught:
        session.run(example_inputs(FAMILY, batch=20))
    assert is_out_of_memory(caught.value)
    assert session.run(example_inputs(FAMILY, batch=1))["logits"].shape == (1, 3)
    # A shortage is tried again: the larger GPU stands for memory that another process has freed.
    gpu.total = 4000 * MIB
    repository.load(NAME)
    assert repository.get(NAME).manifest.version == second


def test_request_cases_are_replayed_after_the_goldens(tmp_path: Path) -> None:
    def fail(model: Model, cases: Sequence[RequestCase]) -> None:
        raise BundleError(f"{model.manifest.name}: case 0 of {len(cases)}: expected 'dog', got 'cat'")

    loading = loader(fail).stages(Version(name=NAME, version=(v := publish(tmp_path, 1))), tmp_path / NAME / v)
    assert [next(loading).state for _ in range(3)] == ["LOADING", "VERIFYING", "VERIFYING"]
    with pytest.raises(BundleError, match="case 0 of 1"):
        next(loading)


@pytest.mark.parametrize(("device", "num_checks"), [("cpu", 0), ("cuda", 1)])
def test_what_was_proven_on_this_kind_of_device_is_not_repeated(
    device: Device, num_checks: int, tmp_path: Path
) -> None:
    checked: list[str] = []

    def check(model: Model, cases: Sequence[RequestCase]) -> None:
        checked.append(model.manifest.name)

    version = publish(tmp_path, 1)
    folder = tmp_path / NAME / version
    proof = Proof(digest=digest(open_bundle(folder)), device=device)
    *_, ready = loader(check).stages(Version(name=NAME, version=version), folder, proof)
    assert (ready.state, len(checked)) == ("READY", num_checks)
    assert ready.measured is not None


def test_what_the_proof_measured_of_the_tokenizer_is_taken_over(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, "text-classifier")
    proof = Proof(digest=digest(open_bundle(folder)), device="cpu", max_inline_bytes=1_234)
    *_, ready = loader().stages(Version(name="tiny-texts", version=folder.name), folder, proof)
    assert ready.model is not None
    assert ready.model.max_inline_bytes == 1_234


def test_other_bytes_than_those_that_were_proven_are_not_loaded(tmp_path: Path) -> None:
    version = publish(tmp_path, 1)
    loading = loader().stages(
        Version(name=NAME, version=version), tmp_path / NAME / version, Proof(digest="0" * 64, device="cpu")
    )
    with pytest.raises(ShortageError, match="its files changed after they were proven"):
        next(loading)


def test_the_goldens_are_replayed_whatever_was_proven(tmp_path: Path) -> None:
    version = publish(tmp_path, 1, files=wrong_golden(1))
    folder = tmp_path / NAME / version
    proof = Proof(digest=digest(open_bundle(folder)), device="cpu")
    with pytest.raises(BundleError, match="golden case"):
        list(loader().stages(Version(name=NAME, version=version), folder, proof))


def test_a_graph_that_hangs_times_out(tmp_path: Path) -> None:
    version = publish(tmp_path, 0, files={"model.onnx": slow_graph(1 << 20)})
    with pytest.raises(CallTimeoutError):
        stages(tmp_path, version, loader(timeout_s=1))
    join_timed_out_calls("replay_golden")


def test_a_replay_that_hangs_times_out(tmp_path: Path) -> None:
    gate = threading.Event()

    def hang(model: Model, cases: Sequence[RequestCase]) -> None:
        gate.wait(60)

    with pytest.raises(CallTimeoutError):
        stages(tmp_path, publish(tmp_path, 1), loader(hang, timeout_s=1))
    gate.set()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (BundleError("m/1: model.onnx has 3 bytes"), "m/1: model.onnx has 3 bytes"),
        (DeviceError("no GPU"), "no GPU"),
        (CallTimeoutError("no result within 60 s"), "m/1: VERIFYING hangs: no result within 60 s"),
        (KeyError("x"), "m/1: VERIFYING failed: KeyError: 'x'"),
    ],
)
def test_failure_reasons_name_the_version_and_stage(error: Exception, reason: str) -> None:
    version = Version(name="m", version="1", state="VERIFYING")
    assert failure_reason(error, f"{version.label}: {version.state}") == reason
