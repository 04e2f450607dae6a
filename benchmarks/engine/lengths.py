"""Run 2,000 sequences of random lengths at once: correctness of the outputs, share of padding, throughput, CPU time.

    python -m benchmarks.engine.lengths [--bundles bundles] [MODEL...]

Every model runs 2,000 items (models without lengths too) by three methods, in turn; the figures are medians of the
rounds. `loop` is a bare loop over `Session.run` on one thread, without the engine. `sequential` is the engine, awaited
one item at a time. `concurrent` is the engine with all items submitted at the same moment, with as many threads as the
service has by default. `bit_identical` counts the outputs of `concurrent` that are equal to those of the loop. CPU time
is that of the whole process and, unlike elapsed time, is much the same on a busy machine. `tasks` is the cost of
waiting for 2,000 futures in 2,000 tasks, which is part of `concurrent`.
"""

import argparse
import asyncio
import gc
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import uvloop

from service.bundle import current_version, open_bundle
from service.contract.heads import LanguageModelHead
from service.engine.limits import Limits
from service.engine.runner import Runner
from service.engine.sessions.session import Session
from service.engine.verification.warmup import warm_up
from service.tuning import tune_worker

Inputs = dict[str, npt.NDArray[Any]]
Outputs = dict[str, npt.NDArray[Any]]
NUM_ITEMS = 2000
GC_THRESHOLD = 10_000, 20, 20  # as in the service


@dataclass(frozen=True, kw_only=True)
class Point:
    """`padding` is the share of the computed steps; `*_per_s` are items, `*_cpu_us` the CPU time of an item."""

    model: str
    threads: int
    bit_identical: int
    items: int
    padding: float
    items_per_batch: float
    loop_per_s: float
    sequential_per_s: float
    concurrent_per_s: float
    loop_cpu_us: float
    sequential_cpu_us: float
    concurrent_cpu_us: float
    tasks_cpu_us: float


def random_item(session: Session, rng: np.random.Generator, max_length: int) -> Inputs:
    """The inputs of one row with random values and a random length."""
    manifest = session.manifest
    steps = int(rng.integers(1, min(manifest.limits.max_steps or 1, max_length) + 1))
    inputs: Inputs = {}
    for spec in manifest.inputs:
        shape = [{"batch": 1, "steps": steps}.get(axis, 1) if isinstance(axis, str) else axis for axis in spec.shape]
        if spec.name == "lengths":
            inputs[spec.name] = np.array([steps])
        elif spec.dtype == "float32":
            inputs[spec.name] = rng.normal(size=shape).astype(np.float32)
        else:
            end = 256 if spec.dtype == "uint8" else getattr(manifest.reader, "vocabulary", 2)
            inputs[spec.name] = rng.integers(0, end, shape).astype(spec.dtype)
    return inputs


def bit_identical(one: Outputs, other: Outputs) -> bool:
    return all(one[name].tobytes() == other[name].tobytes() for name in one)


def sequential(runner: Runner, session: Session, items: list[Inputs], names: list[str]) -> list[Outputs]:
    results: list[Outputs] = []

    # This coroutine returns nothing, because the event loop formats the result of its main coroutine.
    async def run() -> None:
        results.extend([await runner.run(session, inputs, names) for inputs in items])

    uvloop.run(run())
    return results


def concurrent(runner: Runner, session: Session, items: list[Inputs], names: list[str]) -> list[Outputs]:
    results: list[Outputs] = []

    async def run() -> None:
        results.extend(await asyncio.gather(*(runner.run(session, inputs, names) for inputs in items)))

    uvloop.run(run())
    return results


def tasks(num_items: int) -> list[Outputs]:
    """Start as many tasks as there are items; each waits for a future."""

    async def run() -> None:
        futures = [asyncio.get_running_loop().create_future() for _ in range(num_items)]
        asyncio.get_running_loop().call_soon(lambda: [future.set_result(None) for future in futures])
        await asyncio.gather(*map(wait, futures))

    async def wait(future: asyncio.Future[None]) -> None:
        await future

    uvloop.run(run())
    return []


def measure(session: Session, *, threads: int, rounds: int, max_length: int, num_items: int) -> Point:
    rng = np.random.default_rng(0)
    items = [random_item(session, rng, max_length) for _ in range(num_items)]
    names = [spec.name for spec in session.manifest.outputs if spec.name != "logits"]
    limits = Limits(max_queue_items=num_items, timeout_s=600)
    sequential_runner, runner = (Runner(threads=threads, limits=limits) for _ in range(2))
    warm_up(session, sequential_runner)
    warm_up(session, runner)
    methods: dict[str, Callable[[], list[Outputs]]] = {
        "loop": lambda: [session.run(inputs, names) for inputs in items],
        "sequential": lambda: sequential(sequential_runner, session, items, names),
        "concurrent": lambda: concurrent(runner, session, items, names),
        "tasks": lambda: tasks(num_items),
    }
    elapsed_s: dict[str, list[float]] = {method: [] for method in methods}
    cpu_s: dict[str, list[float]] = {method: [] for method in methods}
    outputs: dict[str, list[Outputs]] = {}
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLD)
    tune_worker(None)
    for _ in range(rounds):
        for method, run in methods.items():
            start, cpu_before_s = time.perf_counter(), time.process_time()
            outputs[method] = run()
            elapsed_s[method].append(time.perf_counter() - start)
            cpu_s[method].append(time.process_time() - cpu_before_s)
    sequential_runner.close()
    runner.close()
    (counters,) = runner.counters()
    cpu_us = {f"{method}_cpu_us": statistics.median(cpu_s[method]) / num_items * 1e6 for method in methods}
    return Point(
        model=session.manifest.name,
        threads=threads,
        bit_identical=sum(map(bit_identical, outputs["loop"], outputs["concurrent"])),
        items=num_items,
        padding=counters.padded_steps / (counters.steps + counters.padded_steps),
        items_per_batch=counters.executed_items / counters.batches,
        loop_per_s=num_items / statistics.median(elapsed_s["loop"]),
        sequential_per_s=num_items / statistics.median(elapsed_s["sequential"]),
        concurrent_per_s=num_items / statistics.median(elapsed_s["concurrent"]),
        **cpu_us,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--bundles", type=Path, default=Path("bundles"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-length", type=int, default=128, help="lengths are uniform from 1 to this value")
    parser.add_argument("--items", type=int, default=NUM_ITEMS)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("lengths.json"))
    args = parser.parse_args()
    points = []
    print(
        "| model | bit-identical | padding | items per batch | items/s: loop, sequential, concurrent "
        "| CPU µs per item | concurrent / loop, / sequential |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in args.models or sorted(path.parent.name for path in args.bundles.glob("*/current")):
        bundle = open_bundle(args.bundles / name / current_version(args.bundles / name))
        # The decoder of a language model forms its own batches.
        if isinstance(bundle.manifest.head, LanguageModelHead):
            continue
        session = Session(bundle.model, manifest=bundle.manifest, device="cpu")
        point = measure(
            session, threads=args.threads, rounds=args.rounds, max_length=args.max_length, num_items=args.items
        )
        points.append(point)
        print(
            f"| {name} | {point.bit_identical:,} of {point.items:,} | {point.padding:.1%} "
            f"| {point.items_per_batch:.1f} "
            f"| {point.loop_per_s:,.0f}, {point.sequential_per_s:,.0f}, {point.concurrent_per_s:,.0f} "
            f"| {point.loop_cpu_us:.0f}, {point.sequential_cpu_us:.0f}, {point.concurrent_cpu_us:.0f} "
            f"(tasks {point.tasks_cpu_us:.1f}) "
            f"| {point.concurrent_per_s / point.loop_per_s:.2f}, "
            f"{point.concurrent_per_s / point.sequential_per_s:.2f} |",
            flush=True,
        )
    args.output.write_text(json.dumps({"points": [asdict(point) for point in points]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
