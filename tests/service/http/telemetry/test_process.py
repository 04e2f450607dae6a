"""What runs here, as the metrics name it."""

import platform
import re
import subprocess
from pathlib import Path

import psutil

from service.http.telemetry import process
from service.http.telemetry.process import build_samples, process_samples


def test_the_build_is_that_of_this_checkout() -> None:
    ((family, suffix, labels),) = build_samples("")
    assert (family, suffix) == ("ekiben_build", "_info")
    named = dict(labels)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=process.ROOT, capture_output=True, text=True, check=False)
    assert named["revision"] == (head.stdout.strip() or "unknown")
    assert (named["python"], named["version"]) == (platform.python_version(), "0.1.0")
    assert all(re.fullmatch(r"\d+\.\d+.*", named[name]) for name in ("onnxruntime", "bentoml", "granian"))


def test_a_given_revision_goes_first() -> None:
    ((_, _, labels),) = build_samples("v7")
    assert ("revision", "v7") in labels


def test_a_packed_branch_is_found(tmp_path: Path) -> None:
    (tmp_path / "HEAD").write_text("ref: refs/heads/main\n")
    assert process._checked_out(tmp_path) == ""
    (tmp_path / "packed-refs").write_text("# pack-refs with: peeled\nabc refs/heads/other\ndef refs/heads/main\n")
    assert process._checked_out(tmp_path) == "def"
    (tmp_path / "HEAD").write_text("0123\n")
    assert process._checked_out(tmp_path) == "0123"


def test_numbers_of_the_process_are_those_of_the_kernel() -> None:
    seen = {family: value for (family, _, _), value in process_samples().items()}
    info = psutil.Process()
    assert abs(seen["process_resident_memory_bytes"] - info.memory_info().rss) < 20e6
    assert abs(seen["process_cpu_seconds"] - sum(info.cpu_times()[:2])) < 1
    assert abs(seen["process_open_fds"] - info.num_fds()) <= 2
    assert (seen["ekiben_workers"], seen["ekiben_worker_starts"]) == (1, 1)
