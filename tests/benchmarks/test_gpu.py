"""The script for a machine with a GPU runs through on a CPU, and says what fails."""

from pathlib import Path

import pytest

from benchmarks.gpu.__main__ import main
from benchmarks.gpu.bounds import prove_bounds
from benchmarks.gpu.machine import refusal
from service.bundle import current_version, open_bundle
from tests.service.bundles import NAMES
from tests.service.conftest import served_bundles
from tests.service.engine.gpu.fake_gpu import MIB, FakeGpu

__all__ = ["served_bundles"]
OPTIONS = ("--provider", "cpu", "--requests", "20", "--seconds", "0.01")


def test_every_proof_is_printed(served_bundles: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = NAMES["image-classifier"]
    assert main([name, *OPTIONS, "--bundles", str(served_bundles)]) == 0
    printed = capsys.readouterr().out
    assert f"| {name} |" in printed
    assert "MiB over 20 mixed requests" in printed
    assert "without cuDNN: " in printed
    assert "device 'cuda' was requested" in printed
    assert "all proofs hold" in printed


def test_a_model_that_exceeds_its_bound_is_named(served_bundles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu(monkeypatch, total=8000 * MIB, weights_bytes=10 * MIB, row_bytes=10 * MIB)
    monkeypatch.setattr("benchmarks.gpu.bounds.gpu_memory", gpu.memory)
    folder = served_bundles / NAMES["image-classifier"]
    manifest = open_bundle(folder / current_version(folder)).manifest
    rows, failures = prove_bounds(served_bundles, [manifest])
    assert (rows, failures) == ([(manifest.name, "90", "282", "90")], [])
    assert gpu.used == 0
    gpu.row_bytes = 900 * MIB
    _, failures = prove_bounds(served_bundles, [manifest])
    assert len(failures) == 1
    assert failures[0].startswith(
        f"{manifest.name}/{manifest.version} needs 23,771 MiB of the GPU for its weights and 3"
    )


def test_without_a_gpu_the_reason_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--provider", "cuda"]) == 1
    assert "device 'cuda' was requested, but this onnxruntime has only" in capsys.readouterr().out


def test_a_service_that_ends_for_another_reason_has_not_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.gpu.machine.free_port", lambda: 0)
    assert refusal("cpu", tmp_path) is None
