"""Time a start of the service: from the start of the process until every model is READY, phase by phase.

    python -m benchmarks.engine.loading [--bundles bundles] [--repeats 3] [--workers 1] [--hosts granian bentoml]

`listening` is the time until the port answers, `ready` until /readyz returns 200; every bundle is proven in a child
process. `respawned` is the time from SIGKILL to a worker until the service is ready again; the proofs of the host are
still valid. Seconds: median and slowest of the repeats.

The phases are CPU time in this process, over all models, one after the other: what a child does before the proof, and
what a worker does after it.
"""

import argparse
import asyncio
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import psutil

from benchmarks.connection import Connection
from service.bundle import current_version
from service.engine.repository.loader import Loader
from service.engine.repository.prover import run_checks
from service.engine.repository.version import Version
from service.engine.runner import Runner
from service.tasks.replay import replay_requests
from tests.e2e.serving import ROOT, SERVE, environment, free_port

COMMANDS = {"granian": (sys.executable, "-m", "service"), "bentoml": SERVE}
TIMEOUT_S = 120.0
WORKER_PHASES = (
    "opening the bundle",
    "creating the session",
    "replaying the golden cases",
    "skipping what was proven",
    "running every warm-up shape",
)


async def status(port: int) -> int:
    """Return the status of /readyz, or 0 if nothing answers."""
    with suppress(OSError, EOFError), closing(await Connection.open(port)) as connection:
        return (await connection.request("GET", "/readyz")).status
    return 0


def wait_for(port: int, condition: Callable[[int], bool]) -> float:
    """Wait until /readyz returns a status that meets the condition; return the time."""
    end = time.monotonic() + TIMEOUT_S
    while not condition(asyncio.run(status(port))):
        if time.monotonic() > end:
            sys.exit(f"port {port}: not ready within {TIMEOUT_S:.0f} s")
        time.sleep(0.01)
    return time.monotonic()


@contextmanager
def started(host: str, bundles: Path, workers: int) -> Iterator[tuple[float, int, psutil.Process]]:
    """Start the service; yield the time of the start, the port and the process."""
    port = free_port()
    command = [*COMMANDS[host], "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", str(workers)] if host == "granian" else []
    with tempfile.TemporaryDirectory() as folder:
        env = environment(EKIBEN_BUNDLES=str(bundles.resolve()), BENTOML_HOME=folder)
        began = time.monotonic()
        with (Path(folder) / "log").open("wb") as log:
            server = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log)
        with server:
            try:
                yield began, port, psutil.Process(server.pid)
            finally:
                server.terminate()


def measure_start(host: str, bundles: Path, workers: int) -> dict[str, float]:
    with started(host, bundles, workers) as (began, port, process):
        listening = wait_for(port, lambda code: code != 0) - began
        ready = wait_for(port, lambda code: code == 200) - began
        worker = max(process.children(recursive=True), key=lambda child: child.memory_info().rss)
        killed = time.monotonic()
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
        respawned = wait_for(port, lambda code: code == 200) - killed
    return {"listening": listening, "ready": ready, "respawned": respawned}


def measure_phases(bundles: Path) -> dict[str, float]:
    """Return the CPU seconds of each phase over all models."""
    loader = Loader(device="cpu", replay_requests=replay_requests, planner=Runner())
    seconds: Counter[str] = Counter()
    for folder in sorted(path.parent for path in bundles.glob("*/current")):
        version = Version(name=folder.name, version=current_version(folder))
        path = folder / str(version.version)
        names: list[str] = []
        times: list[float] = []

        def begin(stage: str, names: list[str] = names, times: list[float] = times) -> None:
            names.append(f"child: {stage}")
            times.append(time.process_time())

        proof = run_checks(loader, path, begin)
        names += [f"worker: {phase}" for phase in WORKER_PHASES]
        times.append(time.process_time())
        times += [time.process_time() for _ in loader.stages(version, path, proof)]
        for name, (start, end) in zip(names, pairwise(times), strict=True):
            seconds[name] += end - start
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, default=Path("bundles"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--hosts", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    args = parser.parse_args()
    for host in args.hosts:
        results = [measure_start(host, args.bundles, args.workers) for _ in range(args.repeats)]
        for name in results[0]:
            times = [result[name] for result in results]
            print(f"{host:>8}  {name:<10}  {statistics.median(times):5.2f}  {max(times):5.2f}")
    for phase, seconds in measure_phases(args.bundles).items():
        print(f"{seconds:5.2f}  {phase}")


if __name__ == "__main__":
    main()
