"""Settings of a serving process take effect, where the system allows them."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from service.tuning import HOST_NICENESS, core_of_worker, max_threads
from tests.service.hosts import GRANIAN, classify, running_server


@pytest.mark.parametrize(
    ("num_cores", "num_workers", "cores"),
    [(4, 1, [None]), (4, 2, [None, None]), (2, 2, [10, 11]), (2, 3, [None, None, None]), (1, 1, [None])],
)
def test_workers_stay_on_a_core_each_if_there_are_as_many(
    num_cores: int, num_workers: int, cores: list[int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(10, 10 + num_cores)))
    assert [core_of_worker(index, num_workers) for index in range(num_workers)] == cores


@pytest.mark.parametrize(
    ("limit", "num_workers", "threads"),
    [(None, 1, 4), (None, 3, 4), (2.0, 1, 2), (2.0, 2, 1), (3.5, 1, 3), (0.5, 1, 1), (1.0, 4, 1), (64.0, 2, 4)],
)
def test_workers_share_the_cpu_limit_of_a_container(
    limit: float | None, num_workers: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    monkeypatch.setattr("service.tuning.cpu_limit", lambda: limit)
    assert max_threads(num_workers) == threads


def run_python(code: str) -> str:
    """What the code prints, in a process of its own: the settings last as long as the process."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


GAPS = """
import numpy as np
from service.engine.process.memory import resident_bytes
from service.tuning import tune_malloc
{first}
# When this block is freed, glibc raises its threshold for mapped blocks.
large = np.ones(24 << 20, np.uint8)
del large
held = [(np.ones(24 << 20, np.uint8), bytes(100_000)) for _ in range(4)]
before = resident_bytes()
held = [small for _, small in held]
print((before - resident_bytes()) >> 20)
"""


@pytest.mark.parametrize(("first", "min_mebibytes"), [("", 0), ("tune_malloc()", 90)])
def test_tuned_malloc_leaves_no_gaps_between_large_blocks(first: str, min_mebibytes: int) -> None:
    mebibytes = int(run_python(GAPS.format(first=first)))
    assert mebibytes >= min_mebibytes
    assert first or mebibytes < 90, "glibc returns the blocks untuned: this test proves nothing here"


def test_tuning_the_collector_freezes_what_was_imported() -> None:
    code = (
        "import gc, json; from service.tuning import tune_gc; "
        "tune_gc(); print(gc.get_freeze_count() > 1000, gc.get_threshold())"
    )
    assert run_python(code).strip() == "True (10000, 20, 20)"


def policies(process: psutil.Process) -> set[int]:
    found = set()
    for thread in process.threads():
        with contextlib.suppress(ProcessLookupError):  # the thread has just ended
            found.add(os.sched_getscheduler(thread.id))
    return found


def test_threads_of_a_worker_on_one_core_do_not_preempt_each_other(served_bundles: Path, tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:1])
    try:
        with running_server(GRANIAN, served_bundles, tmp_path) as started:
            assert classify(started.port)[0] == 200
            (worker,) = psutil.Process(started.process.pid).children()
            assert policies(worker) == {os.SCHED_BATCH}
    finally:
        os.sched_setaffinity(0, before)


def test_a_thread_of_low_priority_leaves_the_others_as_they_are() -> None:
    code = """
import os, threading
from service.tuning import lower_priority
def niceness():
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
def run():
    before = niceness()
    lower_priority()
    print(niceness() - before)
thread = threading.Thread(target=run)
before = niceness()
thread.start()
thread.join()
print(niceness() - before)
"""
    assert run_python(code).split() == [str(HOST_NICENESS), "0"]
