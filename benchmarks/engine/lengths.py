"""2,000 sequences of random lengths at once: are the answers those of each alone, how much is padding, how fast is it?

    python -m benchmarks.engine.lengths [--bundles bundles] [MODEL...]

Every model is asked for one item 2,000 times at the same moment (models without lengths too). Three ways, in turns,
medians of the rounds: `loop` is a plain loop over `Session.run`, one item at a time; `single` is the engine with
batches of one; `engine` is the engine as it is. Processor time is that of the whole process and, unlike the clock, says
the same on a busy machine. `alike` counts the answers that are bit-equal to those of the loop.
"""

import argparse
import asyncio
import json
import statistics
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import uvloop

from service.bundle import LanguageModel, current_version, open_bundle
from service.engine.limits import Limits
from service.engine.runner import Runner
from service.engine.session import Session
from service.engine.warming import warm

Inputs = dict[str, npt.NDArray[Any]]
Answer = dict[str, npt.NDArray[Any]]
NUM_ITEMS = 2000


@dataclass(frozen=True, kw_only=True)
class Point:
    model: str
    threads: int
    alike: int
    items: int
    waste: float  # share of what was computed that was padding
    items_a_batch: float
    loop_per_s: float
    single_per_s: float
    engine_per_s: float
    loop_cpu_us: float  # of processor time for an item
    single_cpu_us: float
    engine_cpu_us: float


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


def together(runner: Runner, session: Session, items: list[Inputs], outputs: list[str]) -> list[Answer]:
    answers: list[Answer] = []

    async def all_at_once() -> None:  # returns nothing: a loop writes out what its main coroutine returns
        answers.extend(await asyncio.gather(*(runner.run(session, inputs, outputs) for inputs in items)))

    uvloop.run(all_at_once())
    return answers


def measure(session: Session, *, threads: int, rounds: int, longest: int, num_items: int) -> Point:
    rng = np.random.default_rng(0)
    items = [item(session, rng, longest) for _ in range(num_items)]
    outputs = [spec.name for spec in session.manifest.outputs if spec.name != "logits"]
    limits = Limits(max_queue_items=num_items, timeout_s=600)
    runners = {
        "single": Runner(threads=threads, limits=replace(limits, max_batch_items=1)),
        "engine": Runner(threads=threads, limits=limits),
    }
    for runner in runners.values():
        warm(session, runner)
    ways = ("loop", *runners)
    wall: dict[str, list[float]] = {way: [] for way in ways}
    cpu: dict[str, list[float]] = {way: [] for way in ways}
    answers: dict[str, list[Answer]] = {}
    for _ in range(rounds):
        for way in ways:
            began, began_cpu = time.perf_counter(), time.process_time()
            if way == "loop":
                answers[way] = [session.run(inputs, outputs) for inputs in items]
            else:
                answers[way] = together(runners[way], session, items, outputs)
            wall[way].append(time.perf_counter() - began)
            cpu[way].append(time.process_time() - began_cpu)
    for runner in runners.values():
        runner.close()
    (counters,) = runners["engine"].counters()
    per_s = {f"{way}_per_s": num_items / statistics.median(wall[way]) for way in ways}
    cpu_us = {f"{way}_cpu_us": statistics.median(cpu[way]) / num_items * 1e6 for way in ways}
    return Point(
        model=session.manifest.name,
        threads=threads,
        alike=sum(map(alike, answers["loop"], answers["engine"])),
        items=num_items,
        waste=counters.padded_steps / (counters.steps + counters.padded_steps),
        items_a_batch=counters.executed_items / counters.batches,
        **per_s,
        **cpu_us,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--bundles", type=Path, default=Path("bundles"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--longest", type=int, default=128, help="lengths are uniform from 1 to this")
    parser.add_argument("--items", type=int, default=NUM_ITEMS)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("lengths.json"))
    args = parser.parse_args()
    points = []
    print("| model | bit-equal to alone | padding | items a batch | items/s: loop, single, engine | CPU µs an item |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in args.models or sorted(path.parent.name for path in args.bundles.glob("*/current")):
        bundle = open_bundle(args.bundles / name / current_version(args.bundles / name))
        if isinstance(bundle.manifest.parameters, LanguageModel):
            continue  # the decoder forms its own batches
        session = Session(bundle.model, manifest=bundle.manifest, device="cpu")
        point = measure(session, threads=args.threads, rounds=args.rounds, longest=args.longest, num_items=args.items)
        points.append(point)
        print(
            f"| {name} | {point.alike:,} of {point.items:,} | {point.waste:.1%} | {point.items_a_batch:.1f} "
            f"| {point.loop_per_s:,.0f}, {point.single_per_s:,.0f}, {point.engine_per_s:,.0f} "
            f"| {point.loop_cpu_us:.0f}, {point.single_cpu_us:.0f}, {point.engine_cpu_us:.0f} |",
            flush=True,
        )
    args.output.write_text(json.dumps({"points": [asdict(point) for point in points]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
