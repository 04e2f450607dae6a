"""What each model's strategy of invariance costs: one item alone, with the strategy and without.

    python -m benchmarks.invariance bundles [--device cuda]

Medians of one session run, in turns, so that what else the machine does falls on both alike.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from service.bundle import Bundle, Invariance, LanguageModel, Tensors, current_version, open_bundle
from service.engine.sessions.session import Session
from service.engine.verification.shapes import Shape, zero_inputs

RUNS = 200
STEPS = 16
HEADER = ("model", "level", "strategy", "without (µs)", "with (µs)", "cost")


def medians_us(sessions: Sequence[Session], inputs: Tensors) -> list[float]:
    """Of each session, run in turns."""
    times: list[list[float]] = [[] for _ in sessions]
    for _ in range(RUNS):
        for session, taken in zip(sessions, times, strict=True):
            began = time.perf_counter()
            session.run(inputs)
            taken.append((time.perf_counter() - began) * 1e6)
    return [statistics.median(taken) for taken in times]


def row(bundle: Bundle, device: str) -> tuple[str, ...]:
    """A model's line."""
    manifest = bundle.manifest
    plain = manifest.model_copy(update={"invariance": Invariance(level="tolerance", measured=0, how="none")})
    sessions = [Session(bundle.model, manifest=each, device=device) for each in (plain, manifest)]  # type: ignore[arg-type]
    limit = manifest.limits.max_steps
    is_language = isinstance(manifest.parameters, LanguageModel)
    steps = None if limit is None else 1 if is_language else min(STEPS, limit)
    shape = Shape(batch=1, steps=steps, past=limit if is_language else None)
    without, with_ = medians_us(sessions, zero_inputs(manifest, shape))
    invariance = manifest.invariance
    cost = "" if invariance.strategy == "none" else f"{with_ / without - 1:+.0%}"
    return manifest.name, invariance.level, invariance.strategy, f"{without:.0f}", f"{with_:.0f}", cost


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.invariance", description="Cost of the strategies.")
    arguments.add_argument("bundles", type=Path)
    arguments.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = arguments.parse_args()
    print(f"| {' | '.join(HEADER)} |\n| {' | '.join('---' for _ in HEADER)} |")
    for current in sorted(options.bundles.glob("[!.]*/current")):
        home = current.parent
        print(f"| {' | '.join(row(open_bundle(home / current_version(home)), options.device))} |", flush=True)


if __name__ == "__main__":
    main()
