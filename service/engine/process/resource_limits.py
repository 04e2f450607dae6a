"""Limit the memory and the CPU time of this process.

Invariant: the limits count from the call on, so what the process inherited is not charged to the work that follows. The
kernel refuses an allocation beyond the memory limit and ends a process beyond the CPU limit with SIGXCPU.
"""

import mmap
import os
import re
import resource
from contextlib import suppress
from pathlib import Path


def limit_memory(num_bytes: int) -> None:
    """Allow this process `num_bytes` more of private memory; it also becomes the first that an OOM killer picks.

    RLIMIT_DATA counts what RLIMIT_AS counts without mapped files and reserved addresses.
    """
    _lower(resource.RLIMIT_DATA, _data_bytes() + num_bytes)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def memory_limit_was_reached() -> bool:
    """Return whether the limit refused an allocation that failed: the machine would still give that much.

    Lifts the limit; to be called once the allocation has failed.
    """
    limit, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if limit < 0:
        return False
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
    try:
        mmap.mmap(-1, max(limit - _data_bytes(), mmap.PAGESIZE), mmap.MAP_PRIVATE).close()
    except OSError:
        return False
    return True


def limit_cpu(seconds: float) -> None:
    """Allow this process `seconds` more of CPU time, at least one, over all of its threads."""
    used = sum(os.times()[:2])
    _lower(resource.RLIMIT_CPU, int(used + seconds) + 1)


def disable_core_dumps() -> None:
    """Leave no file behind when this process crashes."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _lower(kind: int, limit: int) -> None:
    """Set a limit, or the hard limit of this process if that is lower."""
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _data_bytes() -> int:
    """Return what the kernel counts against RLIMIT_DATA."""
    found = re.search(r"^VmData:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) << 10 if found else 0
