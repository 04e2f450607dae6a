"""One command: its time, CPU and peak memory, over all its processes.

A way prints `RATE rows seconds` for the part that it wants to be judged by; without that the whole command counts.
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
EVERY_S = 1.0  # 10 ms of a core each time, so not often


@dataclass(frozen=True, kw_only=True)
class Measurement:
    rows: int
    rows_per_s: float
    whole_rows_per_s: float
    cpu_us: float  # a row
    peak_mib: float

    def __str__(self) -> str:
        return f"{self.rows_per_s:,.0f} rows/s ({self.whole_rows_per_s:,.0f} whole), {self.cpu_us:.1f} us CPU a row"


def measure(command: list[str], rows: int) -> Measurement:
    """Run it; exits with its output if it fails."""
    before = os.times()
    began = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    watch = _Watch(process.pid)
    watch.start()
    output, errors = process.communicate()
    seconds = time.perf_counter() - began
    watch.join()
    if process.returncode:
        sys.exit(f"{' '.join(command)}\n{errors[-4000:]}")
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    told = re.search(r"^RATE (\d+) ([0-9.]+)$", output, re.MULTILINE)
    rate = int(told[1]) / float(told[2]) if told else rows / seconds
    return Measurement(
        rows=rows,
        rows_per_s=rate,
        whole_rows_per_s=rows / seconds,
        cpu_us=cpu / rows * 1e6,
        peak_mib=watch.peak / 2**20,
    )


class _Watch(threading.Thread):
    """The memory of a process and its children, shared pages counted once (PSS)."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._root, self.peak = psutil.Process(pid), 0

    def run(self) -> None:
        while self._root.is_running():
            try:
                if self._root.status() == psutil.STATUS_ZOMBIE:
                    return
                total = sum(_pss(process) for process in [self._root, *self._root.children(recursive=True)])
            except psutil.NoSuchProcess:
                return
            self.peak = max(self.peak, total)
            time.sleep(EVERY_S)


def _pss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except (psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError, ProcessLookupError):
        return 0
