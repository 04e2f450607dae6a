"""Start `python -m service` and the load generator as processes of their own, each on its own cores.

A server is reached over HTTP only, so any checkout that has `python -m service` can be measured.
"""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.peers.processes import free_port
from benchmarks.requests import wait_until_ready

ROOT = Path(__file__).parents[2]
HOST = "127.0.0.1"
READY_TIMEOUT_S = 120.0


def split_cores(workers: int, *, shared: bool = False) -> tuple[list[int], list[int]]:
    """The cores of the service and of the generator, which has the last one alone if the workers leave one free."""
    cores = sorted(os.sched_getaffinity(0))
    return (cores, cores) if shared or workers >= len(cores) else (cores[:-1], cores[-1:])


@contextmanager
def pinned_to(cores: list[int]) -> Iterator[None]:
    """Processes started inside run on these cores only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def serve(
    bundles: Path,
    workers: int,
    cores: list[int],
    *,
    checkout: Path = ROOT,
    python: str = sys.executable,
    timeout_s: float = READY_TIMEOUT_S,
    variables: Mapping[str, str] | None = None,
) -> Iterator[tuple[psutil.Process, int]]:
    """Run the service of `checkout` on a free port until all workers are ready; yield its process and port.

    `variables` are those of the environment that it has beside this process's own.
    """
    port = free_port()
    command = [python, "-m", "service", "--host", HOST, "--port", str(port), "--workers", str(workers)]
    environment = {**os.environ, "EKIBEN_BUNDLES": str(bundles.resolve()), **(variables or {})}
    with pinned_to(cores):
        server = subprocess.Popen(command, cwd=checkout, env=environment, stdout=subprocess.DEVNULL)
    with server:
        try:
            wait_until_ready(f"http://{HOST}:{port}", timeout_s=timeout_s)
            if workers > 1:  # which asks for metrics, and so for a key where there are some
                _wait_for_workers(port, workers, timeout_s)
            yield psutil.Process(server.pid), port
        finally:
            server.terminate()


def _wait_for_workers(port: int, workers: int, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"http://{HOST}:{port}/metrics", timeout=10) as response:
            found = re.search(rb"^ekiben_ready_workers (\S+)$", response.read(), re.MULTILINE)
        if found and float(found[1]) == workers:
            return
        time.sleep(0.2)
    sys.exit(f"port {port}: {workers} workers were not ready within {timeout_s:.0f} s")


def generate(load: dict[str, Any], cores: list[int]) -> dict[str, Any]:
    """Run `benchmarks.engine.generator` on these cores and return its result."""
    command = [sys.executable, "-m", "benchmarks.engine.generator"]
    with pinned_to(cores):
        done = subprocess.run(command, cwd=ROOT, input=json.dumps(load), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def cpu_s(processes: Iterable[psutil.Process]) -> float:
    """User and system time of the processes, in seconds."""
    return sum(sum(process.cpu_times()[:2]) for process in processes)
