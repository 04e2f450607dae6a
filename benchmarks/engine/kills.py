"""Kill workers under load: count the lost requests, time the recovery, and check that readiness is reported correctly.

    python -m benchmarks.engine.kills [--bundles bundles] [--workers 2] [--at-once 1] [--kills 10]

Clients send requests without a pause, each on a keep-alive connection, and check every response. Again and again,
`--at-once` of the workers get SIGKILL at the same moment. `response` is the time from the kill until a new connection
gets a correct response, `all ready` the time until every worker is ready again. A request may fail if it was pending
when its worker was killed; `lost without kill` counts requests that failed although no worker was killed meanwhile.
`refused` counts responses that the service is not ready. A probe sends /readyz, each time on a new connection; `false
ready` counts the 200s after which the next request on that connection got no correct response.
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

from benchmarks.connection import Connection, Response
from tests.e2e.serving import ROOT, environment, start

NUM_CLIENTS = 16
# A killed process may still run for this long before the kernel ends it.
KILL_DELAY_S = 1.0
JSON = {"content-type": "application/json"}
CONNECTION_ERRORS = (OSError, EOFError)


@dataclass
class CheckedLoad:
    """Clients that send `body` to /classify and expect the same bytes in every response."""

    port: int
    body: bytes
    kills: list[float] = field(default_factory=list)
    answered: int = 0
    refused: int = 0
    incorrect: int = 0
    lost: int = 0
    lost_without_kill: int = 0
    false_ready: int = 0
    expected: bytes | None = None
    stop: bool = False

    async def client(self) -> None:
        while not self.stop:
            try:
                connection = await Connection.open(self.port)
            except OSError:
                await asyncio.sleep(0.01)
                continue
            start = time.monotonic()
            try:
                while not self.stop:
                    start = time.monotonic()
                    response = await self._classify(connection)
                    refused = response.status == 503
                    self.refused += refused
                    self.answered += not refused
                    self.incorrect += not refused and not self._is_correct(response)
                    if refused:
                        await asyncio.sleep(0.01)
            except CONNECTION_ERRORS:
                self.lost += 1
                self.lost_without_kill += not self._killed_since(start)
            connection.close()

    async def probe(self) -> None:
        while not self.stop:
            await asyncio.sleep(0.02)
            start, ready = time.monotonic(), False
            try:
                with closing(await Connection.open(self.port)) as connection:
                    ready = (await connection.request("GET", "/readyz")).status == 200
                    if ready:
                        self.false_ready += not self._is_correct(await self._classify(connection))
            except CONNECTION_ERRORS:
                self.false_ready += ready and not self._killed_since(start)

    async def wait_for_correct_response(self) -> float:
        """Wait until a new connection gets a correct response; return the time."""
        while True:
            try:
                with closing(await Connection.open(self.port)) as connection:
                    if self._is_correct(await self._classify(connection)):
                        return time.monotonic()
            except CONNECTION_ERRORS:
                pass
            await asyncio.sleep(0.005)

    async def ready_workers(self) -> int:
        try:
            with closing(await Connection.open(self.port)) as connection:
                text = (await connection.request("GET", "/metrics")).body.decode()
        except CONNECTION_ERRORS:
            return 0
        values = [line.rpartition(" ")[2] for line in text.splitlines() if line.startswith("ekiben_ready_workers ")]
        return int(float(values[0])) if values else 0

    async def _classify(self, connection: Connection) -> Response:
        return await connection.request("POST", "/classify", self.body, JSON)

    def _is_correct(self, response: Response) -> bool:
        if self.expected is None and response.status == 200:
            self.expected = response.body
        return response.status == 200 and response.body == self.expected

    def _killed_since(self, start: float) -> bool:
        return any(kill >= start - KILL_DELAY_S for kill in self.kills)


async def measure(
    load: CheckedLoad, parent: psutil.Process, *, workers: int, at_once: int, kills: int
) -> dict[str, float]:
    tasks = [asyncio.create_task(load.client()) for _ in range(NUM_CLIENTS)]
    tasks.append(asyncio.create_task(load.probe()))
    response_s, ready_s = [], []
    for _ in range(kills):
        while await load.ready_workers() < workers:
            await asyncio.sleep(0.02)
        await asyncio.sleep(1)
        load.kills.append(time.monotonic())
        for worker in parent.children()[:at_once]:
            os.kill(worker.pid, signal.SIGKILL)
        response_s.append(await load.wait_for_correct_response() - load.kills[-1])
        await asyncio.sleep(0.05)
        while await load.ready_workers() < workers:
            await asyncio.sleep(0.02)
        ready_s.append(time.monotonic() - load.kills[-1])
    load.stop = True
    await asyncio.gather(*tasks)
    return {
        "response, median s": statistics.median(response_s),
        "response, longest s": max(response_s),
        "all ready, median s": statistics.median(ready_s),
        "all ready, longest s": max(ready_s),
        "answered": load.answered,
        "refused": load.refused,
        "incorrect": load.incorrect,
        "lost": load.lost,
        "lost without kill": load.lost_without_kill,
        "false ready": load.false_ready,
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
            load = CheckedLoad(port=server.port, body=body)
            parent = psutil.Process(server.process.pid)
            results = asyncio.run(measure(load, parent, workers=args.workers, at_once=args.at_once, kills=args.kills))
    print(f"{args.workers} workers, {args.at_once} killed at once, {args.kills} times")
    for name, value in results.items():
        print(f"{name:>20}  {value:.2f}" if isinstance(value, float) else f"{name:>20}  {value:,}")
    sys.exit(bool(results["incorrect"] or results["lost without kill"] or results["false ready"]))


if __name__ == "__main__":
    main()
