"""Mixed work for ten minutes: is every answer right to the last bit, and does anything grow?

    python -m benchmarks.engine.soak [--bundles bundles] [--minutes 10] [--workers 2]

All models, all routes: JSON, image uploads, tensors as JSON and as bytes, generation. Meanwhile clients leave in the
middle of a request or before its answer, send what is wrong, too much, or a byte at a time, and versions are swapped
for others with other weights, now and then for a broken one. After the first two minutes (a fifth of a shorter run) the
resident memory of each worker must grow by less than 2 %: the median of the last such span against that of the first
after it. When all clients have left, each worker must have no more descriptors open than before they came.
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

import psutil

from benchmarks.connection import Answer, Connection
from benchmarks.engine.soak_cases import Case, add_broken, add_version, cases_of, put
from tests.e2e.serving import ROOT, environment, start

WARM_UP_S = 120.0
MOST_GROWTH = 0.02
NUM_CLIENTS = 12
PAUSE_S = 0.02  # on average, between two requests of a client: the machine is not to be the question
SWAP_EVERY_S = 2.0
FAILED = (OSError, EOFError)
JSON = {"content-type": "application/json"}
BAD = [  # path, body, status
    ("/classify", b"{", 400),
    ("/classify", b'{"model": "nobody", "images": [[[0]]]}', 404),
    ("/classify", b'{"model": 7}', 422),
    ("/sequence-predict", b'{"model": "vowels-lstm", "sequences": [[[NaN]]]}', 422),
    ("/generate", b'{"model": "text-transformer", "prompt": "", "max_tokens": 9999}', 422),
    ("/v2/models/mnist-cnn/infer", b'{"inputs": []}', 422),
    ("/nothing", b"", 404),
]


@dataclass
class Tally:
    right: Counter[str] = field(default_factory=Counter)  # by kind
    wrong: list[str] = field(default_factory=list)
    makers: set[str] = field(default_factory=set)  # versions that made a right answer
    swaps: int = 0


class Clients:
    def __init__(self, port: int, cases: list[Case]) -> None:
        self.stop = False
        self.tally = Tally()
        self._port = port
        self._cases = cases

    async def good(self, seed: int) -> None:
        """Asks, checks, keeps its connection for some hundred requests."""
        rng = random.Random(seed)
        while not self.stop:
            connection = await Connection.open(self._port)
            for _ in range(rng.randrange(1, 400)):
                if self.stop:
                    break
                case = rng.choice(self._cases)
                self._check(case.kind, case, await connection.ask("POST", case.path, case.body, case.headers))
                await asyncio.sleep(rng.expovariate(1 / PAUSE_S))
            connection.close()

    async def slow(self, seed: int) -> None:
        """Sends a body in pieces."""
        rng = random.Random(seed)
        while not self.stop:
            case = rng.choice(self._cases)
            connection = await Connection.open(self._port)
            connection.send("POST", case.path, case.headers, length=len(case.body))
            step = len(case.body) // 5 + 1
            for begin in range(0, len(case.body), step):
                await asyncio.sleep(rng.uniform(0, 0.1))
                await connection.write(case.body[begin : begin + step])
            self._check("slow bodies", case, await connection.answer())
            connection.close()

    async def gone(self, seed: int) -> None:
        """Leaves in the middle of its request, or soon after it."""
        rng = random.Random(seed)
        while not self.stop:
            case = rng.choice(self._cases)
            connection = await Connection.open(self._port)
            whole = rng.random() < 0.7
            body = case.body if whole else case.body[: len(case.body) // 2]
            connection.send("POST", case.path, case.headers, length=len(case.body), body=body)
            await asyncio.sleep(rng.uniform(0, 0.03))
            connection.close()
            self.tally.right["left in the middle"] += 1
            await asyncio.sleep(rng.expovariate(1 / PAUSE_S))

    async def bad(self, seed: int) -> None:
        """What is wrong, and what is too much, announced or not."""
        rng = random.Random(seed)
        connection = await Connection.open(self._port)
        while not self.stop:
            await asyncio.sleep(rng.expovariate(1 / PAUSE_S))
            if rng.random() < 0.1:
                await self._too_large(announced=rng.random() < 0.5)
                continue
            path, body, status = rng.choice(BAD)
            answer = await connection.ask("POST", path, body, JSON)
            self._note("bad input", answer.status == status, f"{path} {body!r}: {answer}")
        connection.close()

    async def _too_large(self, *, announced: bool) -> None:
        connection = await Connection.open(self._port)
        try:
            if announced:
                connection.send("POST", "/classify", JSON, length=50 << 20)
            else:
                connection.send_chunked("POST", "/classify", JSON)
                for _ in range(17):
                    await connection.write(b"100000\r\n" + b" " * (1 << 20) + b"\r\n")
                await connection.write(b"0\r\n\r\n")
            answer = await connection.answer()
            self._note("too large a body", answer.status == 413, str(answer))
        except FAILED:  # the server may close as soon as it has read enough
            self.tally.right["too large a body, closed"] += 1
        connection.close()

    def _check(self, kind: str, case: Case, answer: Answer) -> None:
        maker = case.maker(answer)
        self._note(kind, maker is not None, f"{case.path} {case.body[:80]!r}: {answer}"[:600])
        if maker is not None:
            self.tally.makers.add(maker)

    def _note(self, kind: str, right: bool, what: str) -> None:
        if right:
            self.tally.right[kind] += 1
        else:
            self.tally.wrong.append(f"{kind}: {what}")


@dataclass(frozen=True)
class Sample:
    at: float
    resident: int
    descriptors: int


class Workers:
    """What each worker takes, once a second."""

    def __init__(self, parent: psutil.Process) -> None:
        self.processes = parent.children()
        self.samples: dict[int, list[Sample]] = defaultdict(list)

    def sample(self) -> None:
        for process in self.processes:
            found = Sample(time.monotonic(), process.memory_info().rss, process.num_fds())
            self.samples[process.pid].append(found)

    def growth(self, pid: int, span_s: float) -> tuple[float, float]:
        """Resident bytes in the first span after the warm-up, and in the last one."""
        samples = self.samples[pid]
        began, ended = samples[0].at + span_s, samples[-1].at
        first = [sample.resident for sample in samples if began <= sample.at < began + span_s]
        last = [sample.resident for sample in samples if sample.at >= ended - span_s]
        return statistics.median(first), statistics.median(last)


async def soak(clients: Clients, workers: Workers, root: Path, swaps: dict[str, list[str]], seconds: float) -> None:
    tally = clients.tally
    kinds = [clients.good] * NUM_CLIENTS + [clients.slow] * 2 + [clients.gone] * 2 + [clients.bad] * 2
    tasks = [asyncio.create_task(kind(number)) for number, kind in enumerate(kinds)]
    rng, end, swap_at = random.Random(0), time.monotonic() + seconds, 0.0
    while time.monotonic() < end and not any(task.done() for task in tasks):
        await asyncio.sleep(1)
        workers.sample()
        if time.monotonic() > swap_at:
            name = rng.choice(sorted(swaps))
            put(root, name, rng.choices(swaps[name], [9, 9, 2])[0])
            swap_at = time.monotonic() + SWAP_EVERY_S
            tally.swaps += 1
    clients.stop = True
    await asyncio.gather(*tasks)


def prepare(root: Path) -> tuple[list[Case], dict[str, list[str]]]:
    """Second and broken versions of every model; what is asked, and model -> versions, the broken one last."""
    cases: list[Case] = []
    swaps = {}
    for name in sorted(path.parent.name for path in root.glob("*/current")):
        versions = add_version(root, name)
        swaps[name] = [*versions, add_broken(root, name)]
        cases += cases_of(root, name, versions)
    return cases, swaps


def report(tally: Tally, workers: Workers, before: dict[int, int], after: dict[int, int], span_s: float) -> bool:
    for kind, count in sorted(tally.right.items()):
        print(f"{kind:>26}  {count:,}")
    print(f"{'swaps of versions':>26}  {tally.swaps:,}")
    print(f"{'versions that answered':>26}  {len(tally.makers):,}")
    print(f"{'wrong':>26}  {len(tally.wrong):,}")
    for what in tally.wrong[:10]:
        print(f"  {what}")
    held = not tally.wrong
    print("\n| worker | MiB after warm-up | at the end | growth | descriptors before, at most, after |")
    print("| --- | --- | --- | --- | --- |")
    for number, process in enumerate(workers.processes):
        pid = process.pid
        first, last = workers.growth(pid, span_s)
        most = max(sample.descriptors for sample in workers.samples[pid])
        print(
            f"| {number} | {first / 2**20:.1f} | {last / 2**20:.1f} | {last / first - 1:+.2%} "
            f"| {before[pid]}, {most}, {after[pid]} |"
        )
        held = held and last / first - 1 < MOST_GROWTH and after[pid] <= before[pid]
    return held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, default=Path("bundles"))
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--output", type=Path, help="a file for the samples, as JSON")
    args = parser.parse_args()
    seconds = args.minutes * 60
    span_s = min(WARM_UP_S, seconds / 5)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = folder / "bundles"
        shutil.copytree(args.bundles, root)
        cases, swaps = prepare(root)
        env = environment(EKIBEN_BUNDLES=str(root), BENTOML_HOME=name)
        command = (sys.executable, "-m", "service", "--workers", str(args.workers))
        with start(command, env=env, cwd=ROOT, log=folder / "log") as server:
            workers = Workers(psutil.Process(server.process.pid))
            time.sleep(3)  # until every worker is ready
            before = {process.pid: process.num_fds() for process in workers.processes}
            clients = Clients(server.port, cases)
            asyncio.run(soak(clients, workers, root, swaps, seconds))
            time.sleep(5)
            after = {process.pid: process.num_fds() for process in workers.processes}
        if args.output:
            args.output.write_text(
                json.dumps({pid: [vars(s) for s in found] for pid, found in workers.samples.items()})
            )
    held = report(clients.tally, workers, before, after, span_s)
    print("\nheld" if held else "\ndid not hold")
    sys.exit(not held)


if __name__ == "__main__":
    main()
