"""Twice as many requests as the engine can answer, for a minute, whether or not it keeps up.

    python -m benchmarks.engine.overload [--bundles bundles] [--model cifar10-cnn] [--seconds 60] [--obey 0.02]

The peak is measured first, with 256 clients who ask again as soon as they are answered. Then arrivals follow a Poisson
process at twice that rate (an open loop: a slow answer does not slow the next request down), each with the same
deadline. A share of those who are refused obeys: it comes back, with the same question, when it was told to. The load
is made in the engine's own process, on its event loop, which is harder on the engine than a client elsewhere.
"""

import argparse
import asyncio
import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import uvloop

from benchmarks.engine.lengths import Inputs, item
from service.bundle import current_version, open_bundle
from service.engine.deadline import within
from service.engine.limits import Limits
from service.engine.runner import Runner
from service.engine.session import Session
from service.engine.warming import warm
from service.errors import EkibenError

CLIENTS = 256


@dataclass
class Tally:
    answered: int = 0
    late: int = 0  # answered after the deadline, or given up at it
    refused: int = 0
    refusal_s: list[float] = field(default_factory=list)
    answer_s: list[float] = field(default_factory=list)
    returned: int = 0
    returned_accepted: int = 0
    waited: list[float] = field(default_factory=list)  # what the refused were told


@dataclass(frozen=True, kw_only=True)
class Result:
    model: str
    rows: int
    threads: int
    deadline_ms: float
    seconds: float
    peak_per_s: float
    offered_per_s: float
    goodput_of_peak: float
    accepted: int
    in_time: float
    refused: int
    refusal_p99_ms: float
    refusal_max_ms: float
    answer_p50_ms: float
    answer_p99_ms: float
    returned: int
    returned_accepted: float
    rss_growth: float


class Load:
    def __init__(self, runner: Runner, session: Session, *, num_rows: int, deadline_s: float, obey: float) -> None:
        self.tally = Tally()
        self._runner = runner
        self._session = session
        self._deadline_s = deadline_s
        self._obey = obey
        self._rng = np.random.default_rng(0)
        self._pool = [self._rows(num_rows) for _ in range(64)]
        self._number = 0

    def _rows(self, num_rows: int) -> Inputs:
        one = item(self._session, self._rng, 64)
        return {name: np.repeat(value, num_rows, axis=0) for name, value in one.items()}

    def question(self) -> Inputs:
        """One that nobody asked before."""
        self._number += 1
        inputs = dict(self._pool[self._number % len(self._pool)])
        name = self._session.manifest.inputs[0].name
        value: npt.NDArray[Any] = inputs[name].copy()
        value.view(np.uint8).reshape(-1)[:4] = np.frombuffer(
            (self._number & 0x3FFFFFFF).to_bytes(4, "little"), np.uint8
        )
        return {**inputs, name: value}

    async def ask(self, inputs: Inputs, *, back: bool = False) -> bool:
        """Was it answered in time?"""
        tally, began = self.tally, time.monotonic()
        within(self._deadline_s)
        try:
            await self._runner.run(self._session, inputs, ["probabilities"])
        except EkibenError as error:
            took = time.monotonic() - began
            if error.slug == "timeout":
                tally.late += 1
                tally.returned_accepted += back
                return False
            tally.refused += 1
            tally.refusal_s.append(took)
            retry_after_s = error.retry_after_s or 0.0
            tally.waited.append(retry_after_s)
            if not back and self._rng.random() < self._obey:
                await asyncio.sleep(retry_after_s)
                tally.returned += 1
                await self.ask(inputs, back=True)
            return False
        took = time.monotonic() - began
        tally.answered += 1
        tally.answer_s.append(took)
        tally.late += took > self._deadline_s
        tally.returned_accepted += back
        return took <= self._deadline_s

    async def closed(self, seconds: float) -> float:
        """Answers in time a second, from clients who wait for each answer."""
        end = time.monotonic() + seconds
        good = 0

        async def client() -> None:
            nonlocal good
            while time.monotonic() < end:
                in_time = await self.ask(self.question())
                good += in_time

        await asyncio.gather(*(client() for _ in range(CLIENTS)))
        return good / seconds

    async def open(self, seconds: float, rate: float) -> None:
        began = time.monotonic()
        due = began
        tasks: set[asyncio.Task[bool]] = set()
        while due < began + seconds:
            await asyncio.sleep(max(due - time.monotonic(), 0))
            for _ in range(16):
                if due > time.monotonic():
                    break
                task = asyncio.create_task(self.ask(self.question()))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                due += self._rng.exponential(1 / rate)
        self.ended = time.monotonic()
        self.answered_at_end = self.tally.answered - self.tally.late
        waiting = [task for task in tasks if not task.done()]
        await asyncio.wait(waiting, timeout=65) if waiting else None


async def measure(session: Session, args: argparse.Namespace) -> Result:
    deadline_s = args.deadline_ms / 1000
    runner = Runner(threads=args.threads, limits=Limits(max_queue_items=1 << 16))
    warm(session, runner)
    process = psutil.Process()
    peak = max(
        [
            await Load(runner, session, num_rows=args.rows, deadline_s=10, obey=0).closed(args.seconds / 12)
            for _ in range(3)
        ]
    )
    load = Load(runner, session, num_rows=args.rows, deadline_s=deadline_s, obey=args.obey)
    await load.open(args.seconds / 12, 2 * peak)
    rss = process.memory_info().rss
    load = Load(runner, session, num_rows=args.rows, deadline_s=deadline_s, obey=args.obey)
    began = time.monotonic()
    await load.open(args.seconds, 2 * peak)
    good_per_s = load.answered_at_end / (load.ended - began)
    tally = load.tally
    runner.close()
    accepted = tally.answered + tally.late
    return Result(
        model=session.manifest.name,
        rows=args.rows,
        threads=args.threads,
        deadline_ms=args.deadline_ms,
        seconds=args.seconds,
        peak_per_s=peak,
        offered_per_s=(accepted + tally.refused - tally.returned) / (load.ended - began),
        goodput_of_peak=good_per_s / peak,
        accepted=accepted,
        in_time=1 - tally.late / max(accepted, 1),
        refused=tally.refused,
        refusal_p99_ms=float(np.percentile(tally.refusal_s or [0], 99)) * 1000,
        refusal_max_ms=max(tally.refusal_s or [0]) * 1000,
        answer_p50_ms=float(np.percentile(tally.answer_s or [0], 50)) * 1000,
        answer_p99_ms=float(np.percentile(tally.answer_s or [0], 99)) * 1000,
        returned=tally.returned,
        returned_accepted=tally.returned_accepted / max(tally.returned, 1),
        rss_growth=process.memory_info().rss / rss - 1,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, default=Path("bundles"))
    parser.add_argument("--model", default="cifar10-cnn")
    parser.add_argument("--rows", type=int, default=8, help="items in a request")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--deadline-ms", type=float, default=200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--obey", type=float, default=0.02, help="share of the refused who come back as told")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("overload.json"))
    args = parser.parse_args()
    folder = args.bundles / args.model
    bundle = open_bundle(folder / current_version(folder))
    session = Session(bundle.model, manifest=bundle.manifest, device="cpu")
    result = asdict(uvloop.run(measure(session, args)))
    for name, value in result.items():
        print(f"{name:>20}  {value:,.3f}" if isinstance(value, float) else f"{name:>20}  {value}")
    args.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
