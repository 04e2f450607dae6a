"""Workers are killed under load: who loses what, how long until it is served again, and does health tell the truth?

    python -m benchmarks.engine.kills [--bundles bundles] [--workers 2] [--at-once 1] [--kills 10]

Clients ask without a pause, each on a connection that it keeps, and check every answer; `--at-once` of the workers get
SIGKILL at the same moment, again and again. `answer` is the time from the kill until a new connection gets a right
answer, `all ready` until every worker is ready again. A request may fail if it was under way when its worker was
killed; `refused` counts answers that the service is not ready, `lost otherwise` requests that failed though no worker
was killed meanwhile. A probe asks /readyz, each time on a new connection; `untrue` counts when it was told 200 and its
next request on that connection got no right answer.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from benchmarks.connection import Answer, Connection
from tests.e2e.serving import ROOT, environment, start

NUM_CLIENTS = 16
LINGERS_S = 1.0  # a process that was killed may have to wait for its turn to die
JSON = {"content-type": "application/json"}
FAILED = (OSError, EOFError)


@dataclass
class Load:
    """`body` is asked of /classify, and must be answered with the same bytes every time."""

    port: int
    body: bytes
    kills: list[float] = field(default_factory=list)
    answered: int = 0
    refused: int = 0
    wrong: int = 0
    lost: int = 0
    lost_otherwise: int = 0
    untrue: int = 0
    right: bytes | None = None
    stop: bool = False

    async def client(self) -> None:
        while not self.stop:
            try:
                connection = await Connection.open(self.port)
            except OSError:
                await asyncio.sleep(0.01)
                continue
            began = time.monotonic()
            try:
                while not self.stop:
                    began = time.monotonic()
                    answer = await self._ask(connection)
                    refused = answer.status == 503
                    self.refused += refused
                    self.answered += not refused
                    self.wrong += not refused and not self._is_right(answer)
                    if refused:
                        await asyncio.sleep(0.01)
            except FAILED:
                self.lost += 1
                self.lost_otherwise += not self._killed_since(began)
            connection.close()

    async def probe(self) -> None:
        while not self.stop:
            await asyncio.sleep(0.02)
            began, ready = time.monotonic(), False
            try:
                with closing(await Connection.open(self.port)) as connection:
                    ready = (await connection.ask("GET", "/readyz")).status == 200
                    if ready:
                        self.untrue += not self._is_right(await self._ask(connection))
            except FAILED:
                self.untrue += ready and not self._killed_since(began)

    async def first_right(self) -> float:
        """When a new connection got a right answer; waits for it."""
        while True:
            try:
                with closing(await Connection.open(self.port)) as connection:
                    if self._is_right(await self._ask(connection)):
                        return time.monotonic()
            except FAILED:
                pass
            await asyncio.sleep(0.005)

    async def ready_workers(self) -> int:
        try:
            with closing(await Connection.open(self.port)) as connection:
                text = (await connection.ask("GET", "/metrics")).body.decode()
        except FAILED:
            return 0
        found = [line.rpartition(" ")[2] for line in text.splitlines() if line.startswith("ekiben_ready_workers ")]
        return int(float(found[0])) if found else 0

    async def _ask(self, connection: Connection) -> Answer:
        return await connection.ask("POST", "/classify", self.body, JSON)

    def _is_right(self, answer: Answer) -> bool:
        if self.right is None and answer.status == 200:
            self.right = answer.body
        return answer.status == 200 and answer.body == self.right

    def _killed_since(self, moment: float) -> bool:
        return any(kill >= moment - LINGERS_S for kill in self.kills)


async def measure(load: Load, parent: psutil.Process, *, workers: int, at_once: int, kills: int) -> dict[str, float]:
    tasks = [asyncio.create_task(load.client()) for _ in range(NUM_CLIENTS)]
    tasks.append(asyncio.create_task(load.probe()))
    answer_s, ready_s = [], []
    for _ in range(kills):
        while await load.ready_workers() < workers:
            await asyncio.sleep(0.02)
        await asyncio.sleep(1)
        load.kills.append(time.monotonic())
        for worker in parent.children()[:at_once]:
            os.kill(worker.pid, signal.SIGKILL)
        answer_s.append(await load.first_right() - load.kills[-1])
        await asyncio.sleep(0.05)
        while await load.ready_workers() < workers:
            await asyncio.sleep(0.02)
        ready_s.append(time.monotonic() - load.kills[-1])
    load.stop = True
    await asyncio.gather(*tasks)
    return {
        "answer, median s": statistics.median(answer_s),
        "answer, longest s": max(answer_s),
        "all ready, median s": statistics.median(ready_s),
        "all ready, longest s": max(ready_s),
        "answered": load.answered,
        "refused": load.refused,
        "wrong": load.wrong,
        "lost": load.lost,
        "lost otherwise": load.lost_otherwise,
        "untrue": load.untrue,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, default=Path("bundles"))
    parser.add_argument("--model", default="mnist-cnn")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("--kills", type=int, default=10)
    args = parser.parse_args()
    image = np.random.default_rng(0).integers(0, 256, (28, 28)).tolist()
    body = json.dumps({"model": args.model, "images": [image]}).encode()
    command = (sys.executable, "-m", "service", "--workers", str(args.workers))
    with tempfile.TemporaryDirectory() as folder:
        env = environment(EKIBEN_BUNDLES=str(args.bundles.resolve()), BENTOML_HOME=folder)
        with start(command, env=env, cwd=ROOT, log=Path(folder) / "log") as server:
            load = Load(port=server.port, body=body)
            parent = psutil.Process(server.process.pid)
            found = asyncio.run(measure(load, parent, workers=args.workers, at_once=args.at_once, kills=args.kills))
    print(f"{args.workers} workers, {args.at_once} killed at once, {args.kills} times")
    for name, value in found.items():
        print(f"{name:>20}  {value:.2f}" if isinstance(value, float) else f"{name:>20}  {value:,}")
    sys.exit(bool(found["wrong"] or found["lost otherwise"] or found["untrue"]))


if __name__ == "__main__":
    main()
