"""What runs here: the build, and what this worker process uses."""

import os
import platform
import sys
import tomllib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from service.http.telemetry.exposition import Samples

ROOT = Path(__file__).parents[3]
UNKNOWN = "unknown"


@cache
def build_samples(revision: str) -> Samples:
    """The sample that names the build; `revision` is that of the sources, if "" that of a checkout of git."""
    versions = tuple((package, _version(package)) for package in ("onnxruntime", "bentoml", "granian"))
    revision = revision or _checked_out(ROOT / ".git") or UNKNOWN
    labels = ("version", _own_version()), ("revision", revision), ("python", platform.python_version()), *versions
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


def _own_version() -> str:
    try:
        return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])
    except (OSError, KeyError, ValueError):
        return UNKNOWN


def _checked_out(folder: Path) -> str:
    """The commit that a git folder has checked out, or ""."""
    try:
        head = (folder / "HEAD").read_text().strip()
        reference = head.removeprefix("ref: ")
        if reference == head:
            return head
        if (folder / reference).is_file():
            return (folder / reference).read_text().strip()
        packed = (line.split() for line in (folder / "packed-refs").read_text().splitlines())
        return next((parts[0] for parts in packed if parts[1:] == [reference]), "")
    except OSError:
        return ""
