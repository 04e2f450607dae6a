"""What runs here, as the metrics name it."""

import platform
import re
import subprocess

import psutil

from service.container.build import ROOT
from service.http.telemetry.process import build_samples, process_samples


def test_the_build_is_that_of_this_checkout() -> None:
    ((family, suffix, labels),) = build_samples("")
    assert (family, suffix) == ("ekiben_build", "_info")
    named = dict(labels)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert named["revision"] == (head.stdout.strip() or "unknown")
    assert (named["python"], named["version"]) == (platform.python_version(), "0.1.0")
    assert all(re.fullmatch(r"\d+\.\d+.*", named[name]) for name in ("onnxruntime", "bentoml", "granian"))


def test_a_given_revision_goes_first() -> None:
    ((_, _, labels),) = build_samples("v7")
    assert ("revision", "v7") in labels


def test_numbers_of_the_process_are_those_of_the_kernel() -> None:
    seen = {family: value for (family, _, _), value in process_samples().items()}
    info = psutil.Process()
    assert abs(seen["process_resident_memory_bytes"] - info.memory_info().rss) < 20e6
    assert abs(seen["process_cpu_seconds"] - sum(info.cpu_times()[:2])) < 1
    assert abs(seen["process_open_fds"] - info.num_fds()) <= 2
    assert (seen["ekiben_workers"], seen["ekiben_worker_starts"]) == (1, 1)
