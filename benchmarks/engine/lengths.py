"""2,000 sequences of random lengths at once: are the answers those of each alone, how much is padding, how fast is it?

    python -m benchmarks.engine.lengths [--bundles bundles] [MODEL...]

Every model is asked for one item 2,000 times (models without lengths too). Three ways, in turns, medians of the rounds:
`loop` is a plain loop over `Session.run`, on one thread without any engine; `alone` is the engine, awaited one item at
a time; `engine` is the engine asked for all items at the same moment, with as many threads as the service has by
default. `alike` counts the answers that are bit-equal to those of the loop. Processor time is that of the whole process
and, unlike the clock, says much the same on a busy machine; `tasks` is what it costs to wait for 2,000 futures in 2,000
tasks at once, whatever sets them, which is part of `engine`.
"""

import argparse
import asyncio
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import uvloop

from service.bundle import LanguageModel, current_version, open_bundle
from service.engine.limits import Limits
from service.engine.runner import Runner
from service.engine.sessions.session import Session
from service.engine.verification.warmup import warm_up
from service.host import SWITCH_S

Inputs = dict[str, npt.NDArray[Any]]
Answer = dict[str, npt.NDArray[Any]]
NUM_ITEMS = 2000
YOUNG = 10_000, 20, 20  # how often garbage is looked for, as in the service


@dataclass(frozen=True, kw_only=True)
class Point:
    model: str
    threads: int
    alike: int
    items: int
    waste: float  # share of what was computed that was padding
    items_a_batch: float
    loop_per_s: float
    alone_per_s: float
    engine_per_s: float
    loop_cpu_us: float  # of processor time for an item
    alone_cpu_us: float
    engine_cpu_us: float
    tasks_cpu_us: float


def item(session: Session, rng: np.random.Generator, longest: int) -> Inputs:
    """One random row."""
    manifest = session.manifest
    steps = int(rng.integers(1, min(manifest.limits.max_steps or 1, longest) + 1))
    inputs: Inputs = {}
    for spec in manifest.inputs:
        shape = [{"batch": 1, "steps": steps}.get(axis, 1) if isinstance(axis, str) else axis for axis in spec.shape]
        if spec.name == "lengths":
            inputs[spec.name] = np.array([steps])
        elif spec.dtype == "float32":
            inputs[spec.name] = rng.normal(size=shape).astype(np.float32)
        else:
            most = 256 if spec.dtype == "uint8" else getattr(manifest.parameters, "vocabulary", 2)
            inputs[spec.name] = rng.integers(0, most, shape).astype(spec.dtype)
    return inputs


def alike(one: Answer, other: Answer) -> bool:
    return all(one[name].tobytes() == other[name].tobytes() for name in one)


def one_by_one(runner: Runner, session: Session, items: list[Inputs], outputs: list[str]) -> list[Answer]:
    answers: list[Answer] = []

    async def in_turn() -> None:  # returns nothing: a loop writes out what its main coroutine returns
        answers.extend([await runner.run(session, inputs, outputs) for inputs in items])

    uvloop.run(in_turn())
    return answers


def together(runner: Runner, session: Session, items: list[Inputs], outputs: list[str]) -> list[Answer]:
    answers: list[Answer] = []

    async def all_at_once() -> None:
        answers.extend(await asyncio.gather(*(runner.run(session, inputs, outputs) for inputs in items)))

    uvloop.run(all_at_once())
    return answers


def tasks(num_items: int) -> list[Answer]:
    """As many tasks that wait for a future each."""

    async def all_at_once() -> None:
        futures = [asyncio.get_running_loop().create_future() for _ in range(num_items)]
        asyncio.get_running_loop().call_soon(lambda: [future.set_result(None) for future in futures])
        await asyncio.gather(*map(_waiting, futures))

    async def _waiting(future: asyncio.Future[None]) -> None:
        await future

    uvloop.run(all_at_once())
    return []


def measure(session: Session, *, threads: int, rounds: int, longest: int, num_items: int) -> Point:
    rng = np.random.default_rng(0)
    items = [item(session, rng, longest) for _ in range(num_items)]
    outputs = [spec.name for spec in session.manifest.outputs if spec.name != "logits"]
    limits = Limits(max_queue_items=num_items, timeout_s=600)
    lone, runner = (Runner(threads=threads, limits=limits) for _ in range(2))
    warm_up(session, lone)
    warm_up(session, runner)
    ways: dict[str, Callable[[], list[Answer]]] = {
        "loop": lambda: [session.run(inputs, outputs) for inputs in items],
        "alone": lambda: one_by_one(lone, session, items, outputs),
        "engine": lambda: together(runner, session, items, outputs),
        "tasks": lambda: tasks(num_items),
    }
    wall: dict[str, list[float]] = {way: [] for way in ways}
    cpu: dict[str, list[float]] = {way: [] for way in ways}
    answers: dict[str, list[Answer]] = {}
    gc.collect()
    gc.freeze()
    gc.set_threshold(*YOUNG)
    sys.setswitchinterval(SWITCH_S)
    for _ in range(rounds):
        for way, run in ways.items():
            began, began_cpu = time.perf_counter(), time.process_time()
            answers[way] = run()
            wall[way].append(time.perf_counter() - began)
            cpu[way].append(time.process_time() - began_cpu)
    lone.close()
    runner.close()
    (counters,) = runner.counters()
    cpu_us = {f"{way}_cpu_us": statistics.median(cpu[way]) / num_items * 1e6 for way in ways}
    return Point(
        model=session.manifest.name,
        threads=threads,
        alike=sum(map(alike, answers["loop"], answers["engine"])),
        items=num_items,
        waste=counters.padded_steps / (counters.steps + counters.padded_steps),
        items_a_batch=counters.executed_items / counters.batches,
        loop_per_s=num_items / statistics.median(wall["loop"]),
        alone_per_s=num_items / statistics.median(wall["alone"]),
        engine_per_s=num_items / statistics.median(wall["engine"]),
        **cpu_us,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--bundles", type=Path, default=Path("bundles"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--longest", type=int, default=128, help="lengths are uniform from 1 to this")
    parser.add_argument("--items", type=int, default=NUM_ITEMS)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("lengths.json"))
    args = parser.parse_args()
    points = []
    print(
        "| model | alike | padding | a batch | items/s: loop, alone, engine | CPU µs an item | engine / loop, / alone |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in args.models or sorted(path.parent.name for path in args.bundles.glob("*/current")):
        bundle = open_bundle(args.bundles / name / current_version(args.bundles / name))
        if isinstance(bundle.manifest.parameters, LanguageModel):
            continue  # the decoder forms its own batches
        session = Session(bundle.model, manifest=bundle.manifest, device="cpu")
        point = measure(session, threads=args.threads, rounds=args.rounds, longest=args.longest, num_items=args.items)
        points.append(point)
        print(
            f"| {name} | {point.alike:,} of {point.items:,} | {point.waste:.1%} | {point.items_a_batch:.1f} "
            f"| {point.loop_per_s:,.0f}, {point.alone_per_s:,.0f}, {point.engine_per_s:,.0f} "
            f"| {point.loop_cpu_us:.0f}, {point.alone_cpu_us:.0f}, {point.engine_cpu_us:.0f} "
            f"(tasks {point.tasks_cpu_us:.1f}) "
            f"| {point.engine_per_s / point.loop_per_s:.2f}, {point.engine_per_s / point.alone_per_s:.2f} |",
            flush=True,
        )
    args.output.write_text(json.dumps({"points": [asdict(point) for point in points]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
