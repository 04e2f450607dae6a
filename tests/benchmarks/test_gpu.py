"""The script for a machine with a GPU runs through on a CPU, and says what fails."""

from pathlib import Path

import pytest

from benchmarks.gpu.__main__ import main
from benchmarks.gpu.machine import refusal
from tests.service.bundles import NAMES
from tests.service.conftest import served_bundles

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


def test_without_a_gpu_the_reason_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--provider", "cuda"]) == 1
    assert "device 'cuda' was requested, but this onnxruntime has only" in capsys.readouterr().out


def test_a_service_that_ends_for_another_reason_has_not_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.gpu.machine.free_port", lambda: 0)
    assert refusal("cpu", tmp_path) is None
