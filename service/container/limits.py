"""The CPU time and the memory that the container of this process may use, by its control groups, version 1 or 2.

Invariant: the limits of all groups above the process count. What cannot be read limits nothing.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
NO_MEMORY_LIMIT = 1 << 62  # version 1 has no word for it, but the largest number of pages


def available_cores(*, cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int:
    """The cores that this process may keep busy, by its affinity and by the CPU limit of its container; 1 or more."""
    count = len(os.sched_getaffinity(0))
    limit = cpu_limit(cgroups=cgroups, membership=membership)
    return count if limit is None else max(1, min(count, int(limit)))


def cpu_limit(*, cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> float | None:
    """The seconds of CPU time per second, or None without a limit."""
    limits = []
    for folder in _folders("cpu", cgroups, membership):
        with suppress(OSError, ValueError):  # no such file, or it says "max"
            quota, period = (int(word) for word in (folder / "cpu.max").read_text().split())
            limits.append(quota / period)
        with suppress(OSError, ValueError):
            quota = int((folder / "cpu.cfs_quota_us").read_text())
            if quota > 0:  # -1: no limit
                limits.append(quota / int((folder / "cpu.cfs_period_us").read_text()))
    return min(limits, default=None)


def memory_limit(*, cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int | None:
    """The bytes of memory, or None without a limit."""
    limits = []
    for folder in _folders("memory", cgroups, membership):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with suppress(OSError, ValueError):
                limits.append(int((folder / name).read_text()))
    return min((limit for limit in limits if limit < NO_MEMORY_LIMIT), default=None)


def body_budget_problem(
    budget_bytes: int, num_workers: int, *, cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP
) -> str | None:
    """Return one line if the bodies of requests alone could take more than half of the memory of the container."""
    limit, bodies = memory_limit(cgroups=cgroups, membership=membership), num_workers * budget_bytes
    if limit is None or bodies <= limit / 2:
        return None
    return (
        f"the container has {limit >> 20} MiB of memory, of which the bodies of requests may take {bodies >> 20} MiB: "
        "lower EKIBEN_BODY_BUDGET_BYTES, or raise the limit"
    )


def _folders(controller: str, cgroups: Path, membership: Path) -> Iterator[Path]:
    """The folders of the group of this process and of all groups above it, as far as the container shows them."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines or ["0::/", f"1:{controller}:/"]:
        _, controllers, group = line.split(":", 2)
        if controllers == "":  # version 2, which may be mounted beside version 1
            mounts = [cgroups, cgroups / "unified"]
        elif controller in controllers.split(","):
            mounts = [cgroups / controllers, cgroups / controller]
        else:
            continue
        for mount in mounts:
            # A container may see its own group at the root of the mount, but the host's path of it.
            for path in (Path(group), *Path(group).parents):
                yield mount / path.relative_to("/")
