"""2,000 sequences of random lengths at once: are the answers those of each alone, how much is padding, how fast is it?

    python -m benchmarks.engine.lengths [--bundles bundles] [MODEL...]

Every model is asked for one item 2,000 times at the same moment (models without lengths too), by the engine with one
thread and by a plain loop over `Session.run` with the same items, in turns; medians of the rounds. `alike` counts the
answers that are bit-equal to the item's own run.
"""

import argparse
import asyncio
import json
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

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
    alone_per_s: float
    engine_per_s: float
    gain: float  # of items a second
    gain_cpu: float  # of items a second of processor time


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


async def together(runner: Runner, session: Session, items: list[Inputs], outputs: list[str]) -> list[Answer]:
    return await asyncio.gather(*(runner.run(session, inputs, outputs) for inputs in items))


def measure(session: Session, *, threads: int, rounds: int, longest: int, num_items: int) -> Point:
    rng = np.random.default_rng(0)
    items = [item(session, rng, longest) for _ in range(num_items)]
    outputs = [spec.name for spec in session.manifest.outputs if spec.name != "logits"]
    runner = Runner(threads=threads, limits=Limits(max_queue_items=num_items, timeout_s=600))
    warm(session, runner)
    wall: dict[str, list[float]] = {"alone": [], "engine": []}
    cpu: dict[str, list[float]] = {"alone": [], "engine": []}
    answers: dict[str, list[Answer]] = {}
    for _ in range(rounds):
        for way in ("alone", "engine"):
            began, began_cpu = time.perf_counter(), time.process_time()
            if way == "alone":
                answers[way] = [session.run(inputs, outputs) for inputs in items]
            else:
                answers[way] = asyncio.run(together(runner, session, items, outputs))
            wall[way].append(time.perf_counter() - began)
            cpu[way].append(time.process_time() - began_cpu)
    runner.close()
    (counters,) = runner.counters()
    alone_s, engine_s = (statistics.median(wall[way]) for way in ("alone", "engine"))
    return Point(
        model=session.manifest.name,
        threads=threads,
        alike=sum(map(alike, answers["alone"], answers["engine"])),
        items=num_items,
        waste=counters.padded_steps / (counters.steps + counters.padded_steps),
        items_a_batch=counters.executed_items / counters.batches,
        alone_per_s=num_items / alone_s,
        engine_per_s=num_items / engine_s,
        gain=alone_s / engine_s,
        gain_cpu=statistics.median(cpu["alone"]) / statistics.median(cpu["engine"]),
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
    print("| model | bit-equal to alone | padding | items a batch | alone/s | engine/s | gain | gain in CPU |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in args.models or sorted(path.parent.name for path in args.bundles.glob("*/current")):
        bundle = open_bundle(args.bundles / name / current_version(args.bundles / name))
        if isinstance(bundle.manifest.parameters, LanguageModel):
            continue  # the decoder forms its own batches
        session = Session(bundle.model, manifest=bundle.manifest, device="cpu")
        point = measure(session, threads=args.threads, rounds=args.rounds, longest=args.longest, num_items=args.items)
        points.append(point)
        print(
            f"| {name} | {point.alike:,} of {point.items:,} | {point.waste:.1%} | {point.items_a_batch:.1f} "
            f"| {point.alone_per_s:,.0f} | {point.engine_per_s:,.0f} | {point.gain:.2f} | {point.gain_cpu:.2f} |",
            flush=True,
        )
    args.output.write_text(json.dumps({"points": [asdict(point) for point in points]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
