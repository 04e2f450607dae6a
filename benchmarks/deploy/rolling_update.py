"""Replace the replicas of the service one after the other under load, behind a real proxy, and count failed requests.

    python -m benchmarks.deploy.rolling_update [--bundles bundles] [--updates 20] [--order kubernetes|signal|retry]
        [--check-ms 500] [--drain-s SECONDS]

Two replicas stand behind haproxy, which sends every request once. Clients of three kinds send one request after the
other, 50 ms apart: on connections that stay open, on a new connection each time, and with a body that takes 0.3 s to
arrive. Every response is compared with the first one. In the order `kubernetes`, a replica is replaced as Kubernetes
replaces a pod: its end is announced; up to a second later the proxy sends nothing to it any more; after `preStop` it
gets SIGTERM; it drains and exits; a new one starts, and the proxy sends to it when it is ready. In the order `signal`
the replica gets SIGTERM at once, and the proxy finds out by its checks of /readyz, of which three in a row have to
fail; the replica answers for EKIBEN_DRAIN_S, which is longer. `retry` has an EKIBEN_DRAIN_S of 0 and a proxy that sends
refused requests to the other replica.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np

from benchmarks.connection import Connection, Response
from benchmarks.deploy.haproxy import CHECK_INTERVAL_MS, RETRIED, STRICT, Proxy, proxy
from tests.e2e.serving import ROOT, ends_with_parent, environment, free_port

NUM_OPEN, NUM_NEW, NUM_SLOW = 8, 4, 4
PAUSE_S, SLOW_BODY_S = 0.05, 0.3
PRE_STOP_S = 2.0
MAX_NOTICE_S = 1.0  # until the proxy hears that a pod ends; the sleep of preStop is longer
READY_TIMEOUT_S = 300
# EKIBEN_DRAIN_S of each order. haproxy marks a server after three checks, each of which may be late.
DRAIN_S = {"kubernetes": 1.0, "signal": 4.0, "retry": 0.0}
JSON = {"content-type": "application/json"}


@dataclass(kw_only=True)
class Replica:
    """One process of the service after the other, on one port."""

    name: str
    port: int
    env: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "service", "--port", str(self.port)]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                ends_with_parent(command), cwd=ROOT, env=self.env, stdout=output, stderr=subprocess.STDOUT
            )

    async def wait_until_ready(self) -> None:
        end = time.monotonic() + READY_TIMEOUT_S
        async with httpx.AsyncClient() as client:
            while time.monotonic() < end:
                try:
                    if (await client.get(f"http://127.0.0.1:{self.port}/readyz")).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.05)
        raise TimeoutError(f"{self.name} was not ready within {READY_TIMEOUT_S} s: {self.log.read_text()[-2000:]}")

    async def stop(self) -> float:
        """Send SIGTERM and wait until the process has exited; return the seconds that took."""
        assert self.process is not None
        start = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        while self.process.poll() is None:
            await asyncio.sleep(0.01)
        if self.process.returncode:
            raise RuntimeError(f"{self.name} exited with {self.process.returncode}: {self.log.read_text()[-2000:]}")
        return time.monotonic() - start


@dataclass(kw_only=True)
class Load:
    """Clients of the proxy that send `body` to /classify and expect the same bytes in every response."""

    port: int
    body: bytes
    expected: bytes | None = None
    answered: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    stop: bool = False

    async def client(self, kind: str) -> None:
        connection: Connection | None = None
        while not self.stop:
            try:
                connection = connection or await Connection.open(self.port)
                response = await (self._send_slowly(connection) if kind == "slow" else self._send(connection))
                self._check(kind, response)
                await asyncio.sleep(PAUSE_S)
            except (OSError, EOFError) as error:
                self.failed[f"{kind}: {type(error).__name__}"] += 1
                connection = None
            if connection is not None and (kind == "new" or response.headers.get("connection") == "close"):
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    async def _send(self, connection: Connection) -> Response:
        return await connection.request("POST", "/classify", self.body, JSON)

    async def _send_slowly(self, connection: Connection) -> Response:
        half = len(self.body) // 2
        connection.send("POST", "/classify", JSON, length=len(self.body), body=self.body[:half])
        await asyncio.sleep(SLOW_BODY_S)
        await connection.write(self.body[half:])
        return await connection.read_response()

    def _check(self, kind: str, response: Response) -> None:
        if self.expected is None and response.status == 200:
            self.expected = response.body
        if response.status == 200 and response.body == self.expected:
            self.answered[kind] += 1
        else:
            source = "replica" if response.body.startswith(b"{") else "proxy"
            self.failed[f"{kind}: {response.status} of the {source}"] += 1


async def replace(replica: Replica, behind: Proxy, order: str) -> tuple[float, float]:
    """End a replica and start another in its place; return the seconds of the drain and of the new start."""
    if order == "kubernetes":
        notice_s = random.uniform(0, MAX_NOTICE_S)
        await asyncio.sleep(notice_s)
        behind.set_state(replica.name, "drain")
        await asyncio.sleep(PRE_STOP_S - notice_s)
    drain_s = await replica.stop()
    start = time.monotonic()
    replica.start()
    await replica.wait_until_ready()
    behind.set_state(replica.name, "ready")
    while not behind.is_up(replica.name):
        await asyncio.sleep(0.05)
    return drain_s, time.monotonic() - start


async def measure(replicas: list[Replica], behind: Proxy, load: Load, *, updates: int, order: str) -> dict[str, float]:
    for replica in replicas:
        await replica.wait_until_ready()
        while not behind.is_up(replica.name):
            await asyncio.sleep(0.05)
    kinds = ["open"] * NUM_OPEN + ["new"] * NUM_NEW + ["slow"] * NUM_SLOW
    tasks = [asyncio.create_task(load.client(kind)) for kind in kinds]
    await asyncio.sleep(1)
    times = []
    for number in range(updates):
        before = load.failed.total()
        times.append(await replace(replicas[number % len(replicas)], behind, order))
        print(f"update {number + 1}: {load.failed.total() - before} failed", file=sys.stderr, flush=True)
    await asyncio.sleep(1)
    load.stop = True
    await asyncio.gather(*tasks)
    drains, starts = zip(*times, strict=True)
    return {
        "updates": updates,
        **{f"answered, {kind}": count for kind, count in sorted(load.answered.items())},
        "failed": load.failed.total(),
        "drain, median s": statistics.median(drains),
        "drain, longest s": max(drains),
        "start, median s": statistics.median(starts),
        "start, longest s": max(starts),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, default=Path("bundles"))
    parser.add_argument("--model", default="mnist-cnn")
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--order", choices=DRAIN_S, default="kubernetes")
    parser.add_argument("--check-ms", type=int, default=CHECK_INTERVAL_MS, help="interval of the checks of the proxy")
    parser.add_argument("--drain-s", type=float, help="EKIBEN_DRAIN_S; default: that of the order")
    args = parser.parse_args()
    random.seed(0)
    image = np.random.default_rng(0).integers(0, 256, (28, 28)).tolist()
    body = json.dumps({"model": args.model, "images": [image]}).encode()
    drain_s = DRAIN_S[args.order] if args.drain_s is None else args.drain_s
    env = environment(EKIBEN_BUNDLES=str(args.bundles.resolve()), EKIBEN_THREADS="1", EKIBEN_DRAIN_S=str(drain_s))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        replicas = [
            Replica(name=name, port=free_port(), env=env, log=folder / f"{name}.log") for name in ("first", "second")
        ]
        for replica in replicas:
            replica.start()
            stack.callback(lambda replica=replica: replica.process.terminate())
        servers = [(replica.name, replica.port) for replica in replicas]
        retries = RETRIED if args.order == "retry" else STRICT
        behind = stack.enter_context(proxy(free_port(), servers, retries=retries, check_ms=args.check_ms))
        load = Load(port=behind.port, body=body)
        results = asyncio.run(measure(replicas, behind, load, updates=args.updates, order=args.order))
    print(f"{args.order}: {os.cpu_count()} cores, {args.model}, checks every {args.check_ms} ms, drain {drain_s:g} s")
    for name, value in results.items():
        print(f"{name:>20}  {value:.2f}" if isinstance(value, float) else f"{name:>20}  {value:,}")
    for reason, count in load.failed.most_common():
        print(f"{reason:>20}  {count:,}")
    sys.exit(bool(load.failed))


if __name__ == "__main__":
    main()
