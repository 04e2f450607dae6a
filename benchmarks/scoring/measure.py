"""Measures one command: time, CPU time and peak memory over all its processes.

A command may print `RATE rows seconds` for the part that its rows/s refer to; by default they refer to all of it.
"""

import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
# A sample takes 10 ms of a core, so samples must be rare.
SAMPLE_EVERY_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """`cpu_us` is the CPU time per row."""

    rows: int
    rows_per_s: float
    whole_rows_per_s: float
    cpu_us: float
    peak_mib: float

    def __str__(self) -> str:
        return f"{self.rows_per_s:,.0f} rows/s ({self.whole_rows_per_s:,.0f} whole), {self.cpu_us:.1f} us CPU per row"


def measure(command: list[str], rows: int) -> Measurement:
    """Run the command. Exits with its error output if it fails."""
    before = os.times()
    started = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    sampler = _MemorySampler(process.pid)
    sampler.start()
    output, errors = process.communicate()
    seconds = time.perf_counter() - started
    sampler.join()
    if process.returncode:
        sys.exit(f"{' '.join(command)}\n{errors[-4000:]}")
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    rate = re.search(r"^RATE (\d+) ([0-9.]+)$", output, re.MULTILINE)
    return Measurement(
        rows=rows,
        rows_per_s=int(rate[1]) / float(rate[2]) if rate else rows / seconds,
        whole_rows_per_s=rows / seconds,
        cpu_us=cpu / rows * 1e6,
        peak_mib=sampler.peak_bytes / 2**20,
    )


class _MemorySampler(threading.Thread):
    """The peak memory of a process and its children; shared pages count once (PSS)."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._root, self.peak_bytes = psutil.Process(pid), 0

    def run(self) -> None:
        while self._root.is_running():
            try:
                if self._root.status() == psutil.STATUS_ZOMBIE:
                    return
                total = sum(_pss(process) for process in [self._root, *self._root.children(recursive=True)])
            except psutil.NoSuchProcess:
                return
            self.peak_bytes = max(self.peak_bytes, total)
            time.sleep(SAMPLE_EVERY_S)


def _pss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except (psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError, ProcessLookupError):
        return 0
