"""Run mixed load for ten minutes: every response must be correct to the bit, and no resource may grow.

    python -m benchmarks.engine.soak [--bundles bundles] [--minutes 10] [--workers 2] [--clients 18] [--host granian]
        [--no-swaps]

The load covers all models and routes: JSON, image uploads, tensors as JSON and as bytes, generation. Meanwhile clients
disconnect in the middle of a request or before its response, send invalid or oversized bodies or a body in pieces, and
versions are replaced by others with different weights, now and then by a broken one. After the first two minutes (a
fifth of a shorter run) the resident memory of each worker must grow by less than 2 %: the median of the last such span
is compared with that of the first one after the warm-up. When all clients have disconnected, each worker must have no
more descriptors open than after the first requests and no more threads than its pools add, and no request, generation
or queued item may be left in the metrics.
"""

import argparse
import asyncio
import json
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from benchmarks.connection import Connection, Response
from benchmarks.engine.soak_cases import Case, add_broken_version, add_version, make_cases, set_current
from tests.e2e.serving import ROOT, SERVE, environment, start

WARM_UP_S = 120.0
MAX_GROWTH = 0.02
# Of the pools that a worker starts when it needs them.
MAX_POOL_THREADS = 8
IDLE_METRICS = (
    "ekiben_http_in_flight",
    "ekiben_engine_queue_items",
    "ekiben_num_requests_running",
    "ekiben_num_requests_waiting",
)
HOSTS = {"granian": (sys.executable, "-m", "service", "--workers"), "bentoml": (*SERVE, "--api-workers")}
# Mean pause between two requests of a client, so that the machine is not saturated.
PAUSE_S = 0.02
SWAP_EVERY_S = 2.0
CONNECTION_ERRORS = (OSError, EOFError)
JSON = {"content-type": "application/json"}
INVALID_REQUESTS = [  # path, body, status
    ("/classify", b"{", 400),
    ("/classify", b'{"model": "nobody", "images": [[[0]]]}', 404),
    ("/classify", b'{"model": 7}', 422),
    ("/sequence-predict", b'{"model": "vowels-lstm", "sequences": [[[NaN]]]}', 422),
    ("/generate", b'{"model": "text-transformer", "prompt": "", "max_tokens": 9999}', 422),
    ("/v2/models/mnist-cnn/infer", b'{"inputs": []}', 422),
    ("/nothing", b"", 404),
]


@dataclass
class Results:
    """`correct` counts responses by kind; `versions` are those that sent a correct response."""

    correct: Counter[str] = field(default_factory=Counter)
    incorrect: list[str] = field(default_factory=list)
    versions: set[str] = field(default_factory=set)
    swaps: int = 0


class Clients:
    def __init__(self, port: int, cases: list[Case]) -> None:
        self.stop = False
        self.results = Results()
        self._port = port
        self._cases = cases

    async def once(self) -> None:
        """Send every request once, so that the workers have opened what they keep open."""
        connection = await Connection.open(self._port)
        for case in self._cases:
            self._check(case.kind, case, await connection.request("POST", case.path, case.body, case.headers))
        for path, body, status in INVALID_REQUESTS:
            response = await connection.request("POST", path, body, JSON)
            self._record("invalid request", response.status == status, f"{path} {body!r}: {response}")
        connection.close()
        # The files of BentoML's metrics are opened by the first request that reaches its own application.
        await self._send_oversized(declared=False)

    async def steady(self, seed: int) -> None:
        """Send requests, check the responses, and keep each connection for up to 400 requests."""
        rng = random.Random(seed)
        while not self.stop:
            connection = await Connection.open(self._port)
            for _ in range(rng.randrange(1, 400)):
                if self.stop:
                    break
                case = rng.choice(self._cases)
                self._check(case.kind, case, await connection.request("POST", case.path, case.body, case.headers))
                await asyncio.sleep(rng.expovariate(1 / PAUSE_S))
            connection.close()

    async def slow(self, seed: int) -> None:
        """Send bodies in pieces."""
        rng = random.Random(seed)
        while not self.stop:
            case = rng.choice(self._cases)
            connection = await Connection.open(self._port)
            connection.send("POST", case.path, case.headers, length=len(case.body))
            step = len(case.body) // 5 + 1
            for begin in range(0, len(case.body), step):
                await asyncio.sleep(rng.uniform(0, 0.1))
                await connection.write(case.body[begin : begin + step])
            self._check("slow bodies", case, await connection.read_response())
            connection.close()

    async def disconnecting(self, seed: int) -> None:
        """Disconnect in the middle of a request, or soon after it."""
        rng = random.Random(seed)
        while not self.stop:
            case = rng.choice(self._cases)
            connection = await Connection.open(self._port)
            is_complete = rng.random() < 0.7
            body = case.body if is_complete else case.body[: len(case.body) // 2]
            connection.send("POST", case.path, case.headers, length=len(case.body), body=body)
            await asyncio.sleep(rng.uniform(0, 0.03))
            connection.close()
            self.results.correct["disconnected"] += 1
            await asyncio.sleep(rng.expovariate(1 / PAUSE_S))

    async def invalid(self, seed: int) -> None:
        """Send invalid requests, and bodies above the size limit with and without a Content-Length."""
        rng = random.Random(seed)
        connection = await Connection.open(self._port)
        while not self.stop:
            await asyncio.sleep(rng.expovariate(1 / PAUSE_S))
            if rng.random() < 0.1:
                await self._send_oversized(declared=rng.random() < 0.5)
                # It may have taken longer than an idle connection lives.
                connection.close()
                connection = await Connection.open(self._port)
                continue
            path, body, status = rng.choice(INVALID_REQUESTS)
            response = await connection.request("POST", path, body, JSON)
            self._record("invalid request", response.status == status, f"{path} {body!r}: {response}")
        connection.close()

    async def _send_oversized(self, *, declared: bool) -> None:
        connection = await Connection.open(self._port)
        try:
            if declared:
                connection.send("POST", "/classify", JSON, length=50 << 20)
            else:
                connection.send_chunked("POST", "/classify", JSON)
                for _ in range(17):
                    await connection.write(b"100000\r\n" + b" " * (1 << 20) + b"\r\n")
                await connection.write(b"0\r\n\r\n")
            response = await connection.read_response()
            self._record("oversized body", response.status == 413, str(response))
        except CONNECTION_ERRORS:
            # The server may close the connection as soon as it has read more than the limit.
            self.results.correct["oversized body, closed"] += 1
        connection.close()

    def _check(self, kind: str, case: Case, response: Response) -> None:
        version = case.matching_version(response)
        self._record(kind, version is not None, f"{case.path} {case.body[:80]!r}: {response}"[:600])
        if version is not None:
            self.results.versions.add(version)

    def _record(self, kind: str, is_correct: bool, description: str) -> None:
        if is_correct:
            self.results.correct[kind] += 1
        else:
            self.results.incorrect.append(f"{kind}: {description}")


@dataclass(frozen=True)
class Sample:
    time_s: float
    rss_bytes: int
    descriptors: int
    threads: int


def take_sample(process: psutil.Process) -> Sample:
    return Sample(time.monotonic(), process.memory_info().rss, process.num_fds(), process.num_threads())


def find_workers(parent: psutil.Process, host: str, count: int) -> list[psutil.Process]:
    """Return the processes that answer: the children of granian's master, or the largest ones below BentoML's."""
    if host == "granian":
        return parent.children()
    by_size = sorted(parent.children(recursive=True), key=lambda process: process.memory_info().rss)
    return by_size[-count:]


def busy_metrics(url: str) -> dict[str, float]:
    """Return what the service still has to do, summed over models and workers, without what is zero."""
    found: Counter[str] = Counter()
    for line in httpx.get(f"{url}/metrics", timeout=30).text.splitlines():
        name, _, value = line.rpartition(" ")
        if name.partition("{")[0] in IDLE_METRICS:
            found[name.partition("{")[0]] += float(value)
    return {name: value for name, value in found.items() if value}


class WorkerMonitor:
    """Samples the memory, the descriptors and the threads of each worker."""

    def __init__(self, processes: list[psutil.Process]) -> None:
        self.processes = processes
        self.samples: dict[int, list[Sample]] = defaultdict(list)

    def sample(self) -> None:
        for process in self.processes:
            self.samples[process.pid].append(take_sample(process))

    def growth(self, pid: int, span_s: float) -> tuple[float, float]:
        """Median resident bytes in the first span after the warm-up, and in the last span."""
        samples = self.samples[pid]
        start, end = samples[0].time_s + span_s, samples[-1].time_s
        first = [sample.rss_bytes for sample in samples if start <= sample.time_s < start + span_s]
        last = [sample.rss_bytes for sample in samples if sample.time_s >= end - span_s]
        return statistics.median(first), statistics.median(last)


async def soak(
    clients: Clients,
    monitor: WorkerMonitor,
    root: Path,
    swaps: dict[str, list[str]],
    *,
    seconds: float,
    num_clients: int,
) -> None:
    """Run the load: of nine clients six send requests; the others send slowly, disconnect, or send what is wrong."""
    results = clients.results
    num_others = num_clients // 9 + 1
    behaviours = [clients.steady] * (num_clients - 3 * num_others)
    behaviours += [clients.slow, clients.disconnecting, clients.invalid] * num_others
    tasks = [asyncio.create_task(behaviour(seed)) for seed, behaviour in enumerate(behaviours)]
    rng, end, swap_at = random.Random(0), time.monotonic() + seconds, 0.0
    while time.monotonic() < end and not any(task.done() for task in tasks):
        await asyncio.sleep(1)
        monitor.sample()
        if swaps and time.monotonic() > swap_at:
            name = rng.choice(sorted(swaps))
            set_current(root, name, rng.choices(swaps[name], [9, 9, 2])[0])
            swap_at = time.monotonic() + SWAP_EVERY_S
            results.swaps += 1
    clients.stop = True
    await asyncio.gather(*tasks)


def prepare(root: Path) -> tuple[list[Case], dict[str, list[str]]]:
    """Add a second and a broken version of every model.

    Returns the cases, and the versions of each model with the broken one last.
    """
    cases: list[Case] = []
    swaps = {}
    for name in sorted(path.parent.name for path in root.glob("*/current")):
        versions = add_version(root, name)
        swaps[name] = [*versions, add_broken_version(root, name)]
        cases += make_cases(root, name, versions)
    return cases, swaps


def report(
    results: Results,
    monitor: WorkerMonitor,
    *,
    before: dict[int, Sample],
    after: dict[int, Sample],
    busy: dict[str, float],
    span_s: float,
) -> bool:
    for kind, count in sorted(results.correct.items()):
        print(f"{kind:>26}  {count:,}")
    print(f"{'version swaps':>26}  {results.swaps:,}")
    print(f"{'versions with responses':>26}  {len(results.versions):,}")
    print(f"{'incorrect':>26}  {len(results.incorrect):,}")
    for description in results.incorrect[:10]:
        print(f"  {description}")
    print(f"{'left in the metrics':>26}  {busy or 'nothing'}")
    passed = not results.incorrect and not busy
    print("\n| worker | MiB after warm-up | at the end | growth | descriptors before, maximum, after | threads |")
    print("| --- | --- | --- | --- | --- | --- |")
    for number, process in enumerate(monitor.processes):
        pid = process.pid
        first, last = monitor.growth(pid, span_s)
        max_descriptors = max(sample.descriptors for sample in monitor.samples[pid])
        print(
            f"| {number} | {first / 2**20:.1f} | {last / 2**20:.1f} | {last / first - 1:+.2%} "
            f"| {before[pid].descriptors}, {max_descriptors}, {after[pid].descriptors} "
            f"| {before[pid].threads}, {after[pid].threads} |"
        )
        passed = passed and last / first - 1 < MAX_GROWTH and after[pid].descriptors <= before[pid].descriptors
        passed = passed and after[pid].threads <= before[pid].threads + MAX_POOL_THREADS
    return passed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, default=Path("bundles"))
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--clients", type=int, default=18)
    parser.add_argument("--no-swaps", action="store_true", help="serve one version of each model throughout")
    parser.add_argument("--host", choices=HOSTS, default="granian")
    parser.add_argument("--output", type=Path, help="write the samples to this file, as JSON")
    args = parser.parse_args()
    seconds = args.minutes * 60
    span_s = min(WARM_UP_S, seconds / 5)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = folder / "bundles"
        shutil.copytree(args.bundles, root)
        cases, swaps = prepare(root)
        env = environment(EKIBEN_BUNDLES=str(root), BENTOML_HOME=name)
        command = (*HOSTS[args.host], str(args.workers))
        with start(command, env=env, cwd=ROOT, log=folder / "log") as server:
            # By then every worker is ready.
            time.sleep(3)
            monitor = WorkerMonitor(find_workers(psutil.Process(server.process.pid), args.host, args.workers))
            clients = Clients(server.port, cases)
            for _ in range(2 * args.workers):
                asyncio.run(clients.once())
            time.sleep(1)
            before = {process.pid: take_sample(process) for process in monitor.processes}
            asyncio.run(
                soak(clients, monitor, root, {} if args.no_swaps else swaps, seconds=seconds, num_clients=args.clients)
            )
            time.sleep(5)
            after = {process.pid: take_sample(process) for process in monitor.processes}
            busy = busy_metrics(server.address)
        if args.output:
            args.output.write_text(
                json.dumps({pid: [vars(sample) for sample in samples] for pid, samples in monitor.samples.items()})
            )
    passed = report(clients.results, monitor, before=before, after=after, busy=busy, span_s=span_s)
    print("\npassed" if passed else "\nfailed")
    sys.exit(not passed)


if __name__ == "__main__":
    main()
