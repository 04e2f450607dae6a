"""What runs here: the build, and what this worker process uses."""

import os
import platform
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from service.container.build import UNKNOWN, own_revision, own_version
from service.http.telemetry.exposition import Samples


@cache
def build_samples(revision: str) -> Samples:
    """The sample that names the build; `revision` is that of the sources, if "" the recorded one."""
    versions = tuple((package, _version(package)) for package in ("onnxruntime", "bentoml", "granian"))
    revision = revision or own_revision() or UNKNOWN
    labels = ("version", own_version()), ("revision", revision), ("python", platform.python_version()), *versions
    return {("ekiben_build", "_info", labels): 1}


def process_samples() -> Samples:
    """The samples of this process."""
    clock_ticks = os.times()
    samples: Samples = {
        ("ekiben_worker_starts", "_total", ()): 1,
        ("ekiben_workers", "", ()): 1,
        ("process_cpu_seconds", "_total", ()): clock_ticks.user + clock_ticks.system,
    }
    if sys.platform == "linux":
        resident_pages = int(Path("/proc/self/statm").read_text().split()[1])
        samples["process_resident_memory_bytes", "", ()] = resident_pages * os.sysconf("SC_PAGE_SIZE")
        samples["process_open_fds", "", ()] = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are all it takes
    return samples


def _version(package: str) -> str:
    for name in (package, f"{package}-gpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return UNKNOWN
