"""Measure what each model's strategy for batch invariance costs: one item alone, with the strategy and without.

    python -m benchmarks.invariance bundles [--device cuda]

Prints medians of single runs. The two sessions run in turn, so that other load on the machine slows both.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from service.bundle import Bundle, Tensors, current_version, open_bundle
from service.contract.heads import LanguageModelHead
from service.engine.sessions.session import Session
from service.engine.verification.shapes import Shape, zero_inputs
from service.manifest import Invariance

RUNS = 200
STEPS = 16
HEADER = ("model", "level", "strategy", "without (µs)", "with (µs)", "cost")


def medians_us(sessions: Sequence[Session], inputs: Tensors) -> list[float]:
    """The median time of a run of each session."""
    times_us: list[list[float]] = [[] for _ in sessions]
    for _ in range(RUNS):
        for session, session_times_us in zip(sessions, times_us, strict=True):
            start = time.perf_counter()
            session.run(inputs)
            session_times_us.append((time.perf_counter() - start) * 1e6)
    return [statistics.median(each) for each in times_us]


def measure(bundle: Bundle, device: str) -> tuple[str, ...]:
    """The cells of a model's row, as HEADER names them."""
    manifest = bundle.manifest
    no_strategy = manifest.model_copy(update={"invariance": Invariance(level="tolerance", measured=0, how="none")})
    sessions = [
        Session(bundle.model, manifest=each, device=device)  # type: ignore[arg-type]
        for each in (no_strategy, manifest)
    ]
    limit = manifest.limits.max_steps
    is_language = isinstance(manifest.head, LanguageModelHead)
    steps = None if limit is None else 1 if is_language else min(STEPS, limit)
    shape = Shape(batch=1, steps=steps, past=limit if is_language else None)
    without_us, with_us = medians_us(sessions, zero_inputs(manifest, shape))
    invariance = manifest.invariance
    cost = "" if invariance.strategy == "none" else f"{with_us / without_us - 1:+.0%}"
    return manifest.name, invariance.level, invariance.strategy, f"{without_us:.0f}", f"{with_us:.0f}", cost


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.invariance", description="Cost of the strategies.")
    parser.add_argument("bundles", type=Path)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    args = parser.parse_args()
    print(f"| {' | '.join(HEADER)} |\n| {' | '.join('---' for _ in HEADER)} |")
    for current in sorted(args.bundles.glob("[!.]*/current")):
        folder = current.parent
        print(f"| {' | '.join(measure(open_bundle(folder / current_version(folder)), args.device))} |", flush=True)


if __name__ == "__main__":
    main()
