"""What a container may use is read from control groups of both versions, wherever the container shows them."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from service.container.limits import CGROUPS, available_cores, body_budget_problem, cpu_limit, memory_limit


def cpu_of(tmp_path: Path, files: dict[str, str], membership: str) -> float | None:
    return cpu_limit(**fixture(tmp_path, files, membership))


def fixture(tmp_path: Path, files: dict[str, str], membership: str) -> dict[str, Path]:
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "self").write_text(membership)
    return {"cgroups": tmp_path / "cgroup", "membership": tmp_path / "self"}


@pytest.mark.parametrize(
    ("files", "membership", "limit"),
    [
        ({"cpu.max": "150000 100000\n"}, "0::/\n", 1.5),
        ({"cpu.max": "max 100000\n"}, "0::/\n", None),
        # A pod with a smaller limit than its container, and the other way round.
        ({"pod/cpu.max": "100000 100000", "pod/a/cpu.max": "max 100000"}, "0::/pod/a\n", 1.0),
        ({"pod/cpu.max": "400000 100000", "pod/a/cpu.max": "50000 100000"}, "0::/pod/a\n", 0.5),
        # The path is the host's, and the container sees its own group at the root.
        ({"cpu.max": "300000 100000"}, "0::/system.slice/docker-1.scope\n", 3.0),
        ({"cpu/cpu.cfs_quota_us": "250000", "cpu/cpu.cfs_period_us": "100000"}, "1:cpu:/docker/1\n0::/\n", 2.5),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "1:cpu:/\n", None),
        (
            {"cpu,cpuacct/a/cpu.cfs_quota_us": "20000", "cpu,cpuacct/a/cpu.cfs_period_us": "10000"},
            "4:cpu,cpuacct:/a\n",
            2.0,
        ),
        ({"unified/a/cpu.max": "100000 50000"}, "3:cpuset:/\n0::/a\n", 2.0),
        ({"cpu.max": "nonsense"}, "0::/\n", None),
        ({}, "0::/\n", None),
    ],
)
def test_cpu_limit_of_both_versions(
    files: dict[str, str], membership: str, limit: float | None, tmp_path: Path
) -> None:
    assert cpu_of(tmp_path, files, membership) == limit


@pytest.mark.parametrize(
    ("files", "membership", "limit"),
    [
        ({"memory.max": "536870912\n"}, "0::/\n", 1 << 29),
        ({"memory.max": "max\n"}, "0::/\n", None),
        ({"a/memory.max": "max", "memory.max": "1000"}, "0::/a\n", 1000),
        ({"memory/memory.limit_in_bytes": "1073741824"}, "5:memory:/docker/1\n", 1 << 30),
        ({"memory/memory.limit_in_bytes": "9223372036854771712"}, "5:memory:/\n", None),
        ({}, "0::/\n", None),
    ],
)
def test_memory_limit_of_both_versions(
    files: dict[str, str], membership: str, limit: int | None, tmp_path: Path
) -> None:
    assert memory_limit(**fixture(tmp_path, files, membership)) == limit


@pytest.mark.parametrize(("mebibytes", "is_told"), [("512", True), ("1023", True), ("1024", False), ("max", False)])
def test_a_container_that_bodies_could_fill_is_told(mebibytes: str, is_told: bool, tmp_path: Path) -> None:
    limit = mebibytes if mebibytes == "max" else str(int(mebibytes) << 20)
    problem = body_budget_problem(256 << 20, 2, **fixture(tmp_path, {"memory.max": limit}, "0::/\n"))
    expected = f"the container has {mebibytes} MiB of memory, of which the bodies of requests may take 512 MiB"
    assert problem is None if not is_told else str(problem).startswith(expected)


@pytest.mark.parametrize(
    ("text", "count"), [("max 100000", 99), ("150000 100000", 1), ("50000 100000", 1), ("700000 100000", 7), ("", 99)]
)
def test_available_cores_respect_the_limit(
    text: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(99)))
    assert available_cores(**fixture(tmp_path, {"cpu.max": text}, "0::/\n")) == count
    nothing = tmp_path / "nothing"
    assert available_cores(cgroups=nothing, membership=nothing) == 99


@pytest.fixture
def group() -> Iterator[Path]:
    """A real control group with a limit of half a core and, in version 2, of memory."""
    version_1 = CGROUPS / "cpu" / "cpu.cfs_quota_us"
    folder = (CGROUPS / "cpu" if version_1.exists() else CGROUPS) / f"ekiben-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"control groups cannot be made here: {error.strerror}")
    try:
        if version_1.exists():
            (folder / "cpu.cfs_quota_us").write_text("50000")
        elif (folder / "cpu.max").exists():
            (folder / "cpu.max").write_text("50000 100000")
        else:
            pytest.skip("the CPU controller is not delegated here")
        yield folder
    finally:
        with suppress(OSError):
            folder.rmdir()


def test_a_process_in_a_real_group_reads_its_limit(group: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; Path(sys.argv[1], 'cgroup.procs').write_text(str(os.getpid())); "
        "from service.container.limits import available_cores, cpu_limit; print(cpu_limit(), available_cores())"
    )
    done = subprocess.run([sys.executable, "-c", code, group], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0.5", "1"]
