"""Prove bundles on a GPU in less than eight minutes, and say what the engine gets out of it.

    python -m benchmarks.gpu [NAME...] [--provider cuda] [--bundles bundles] [--requests 10000] [--seconds 2]

Every bundle must reproduce its golden cases, with TF32 off unless all of them are variants in tf32, the service must
refuse the GPU without cuDNN, the memory of the device must stay as it is over mixed requests, and batches at the same
time must stay within the bound of a model. The share is that of the engine in the rows a second of a raw session whose
tensors stay on the device, each at its best batch; of a language model, of decoding steps. Beside it stand the rows of
a CUDA graph, 0 if a model cannot be one, and of the service's session without an engine. With `--provider cpu` the
script runs on any machine, and its shares mean nothing. Exit status 1 if a proof fails.
"""

import argparse
import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.gpu.bounds import prove_bounds
from benchmarks.gpu.machine import describe, refusal, used_bytes
from benchmarks.gpu.throughput import BATCHES, decoded_rows, engine_rows, raw_rows, rows_of, session_rows
from service.bundle import Bundle, current_version, open_bundle
from service.contract.heads import LanguageModelHead
from service.engine.runner import Runner
from service.engine.sessions.device import Device, resolve_device
from service.engine.sessions.session import Session
from service.engine.verification.batch_invariance import find_mismatches
from service.engine.verification.parity import replay_cases
from service.errors import BundleError, DeviceError

LoadedModel = tuple[Bundle, Session]
MEASURED = ("mnist-cnn", "cifar10-cnn", "news-lstm", "text-transformer")
MIN_SHARE = 0.9
# The allocator may still grow over the first share of the requests.
WARM_SHARE, MAX_GROWTH_BYTES = 0.1, 64 << 20
MIXED_BATCHES = (1, 2, 3, 5, 8, 13, 32)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 all proofs hold, 1 one does not."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu")
    parser.add_argument("names", nargs="*", help="models (default: all)")
    parser.add_argument("--provider", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--bundles", type=Path, default=Path("bundles"))
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each measurement of speed")
    args = parser.parse_args(argv)
    began = time.perf_counter()
    names = args.names or sorted(path.parent.name for path in args.bundles.glob("[!.]*/current"))
    bundles = [open_bundle(args.bundles / name / current_version(args.bundles / name)) for name in names]
    try:
        device = resolve_device(args.provider, allow_tf32=all(bundle.manifest.allows_tf32 for bundle in bundles))
    except DeviceError as error:
        print(error)
        return 1
    _print(("machine", ""), *describe(device))
    models, failures = _load(bundles, device)
    failures += _prove_speed(models, device, args.seconds)
    failures += _prove_memory(models, device, args.requests)
    if device == "cuda":
        rows, exceeded = prove_bounds(args.bundles, [bundle.manifest for bundle, _ in models])
        _print(("memory of the GPU, MiB", "READY", "bound", "under load"), *rows)
        failures += exceeded
    line = refusal(device, args.bundles)
    print(f"\nwithout cuDNN: {line or 'the service starts'}")
    failures += [] if line else ["the service does not refuse a GPU that lacks a library"]
    print("\n".join(failures) or "all proofs hold", f"({time.perf_counter() - began:.0f} s)")
    return 1 if failures else 0


def _load(bundles: Sequence[Bundle], device: Device) -> tuple[list[LoadedModel], list[str]]:
    """The bundles that pass their golden cases, and what is wrong with the others."""
    models, failures = list[LoadedModel](), list[str]()
    rows = [("goldens", "largest difference", "rows that differ by their batch")]
    for bundle in bundles:
        name, cases = bundle.manifest.name, dict(enumerate(bundle.golden))
        try:
            session = Session(bundle.model, manifest=bundle.manifest, device=device, data=bundle.data)
            measured = replay_cases(session, cases)
        except (BundleError, DeviceError) as error:
            failures.append(str(error))
            rows.append((name, "refused", ""))
            continue
        mismatches = [mismatch.difference for mismatch in find_mismatches(session, cases)]
        models.append((bundle, session))
        different = f"{len(mismatches)}, by up to {max(mismatches):.2g}" if mismatches else "none"
        rows.append((name, f"{max(measured.values()):.2g}", different))
    _print(*rows)
    return models, failures


def _prove_speed(models: Sequence[LoadedModel], device: Device, seconds: float) -> list[str]:
    rows, failures = [("rows a second", "raw", "CUDA graph", "session", "engine", "share")], list[str]()
    runner = Runner(threads=2)
    for bundle, session in models:
        name = bundle.manifest.name
        if name not in MEASURED:
            continue
        inputs = {
            batch: rows_of(session, bundle, batch) for batch in BATCHES if batch <= bundle.manifest.limits.max_items
        }
        raw = max(raw_rows(bundle, batch, device, seconds) for batch in inputs.values())
        # Whether CUDA graphs are worth having: they need a session, and memory, for each batch size.
        captured = (
            max(
                (raw_rows(bundle, batch, device, seconds, is_captured=True) for batch in inputs.values()),
                default=0.0,
            )
            if device == "cuda"
            else 0.0
        )
        unbatched = max(session_rows(session, batch, seconds) for batch in inputs.values())
        if isinstance(bundle.manifest.head, LanguageModelHead):
            engine = max(decoded_rows(session, batch, seconds) for batch in inputs.values())
        else:
            engine = max(asyncio.run(engine_rows(runner, session, batch, seconds)) for batch in inputs.values())
        figures = (f"{figure:,.0f}" for figure in (raw, captured, unbatched, engine))
        rows.append((name, *figures, f"{engine / raw:.2f}"))
        if device == "cuda" and engine < MIN_SHARE * raw:
            failures.append(f"{name}: the engine has {engine / raw:.2f} of the raw session, expected {MIN_SHARE}")
    _print(*rows)
    return failures


def _prove_memory(models: Sequence[LoadedModel], device: Device, num_requests: int) -> list[str]:
    """Requests of all models and several sizes, in random order."""
    rng = np.random.default_rng(0)
    inputs = [
        (session, rows_of(session, bundle, batch))
        for bundle, session in models
        for batch in MIXED_BATCHES
        if batch <= bundle.manifest.limits.max_items
    ]
    # Every shape once, so that what follows is the same again.
    for session, tensors in inputs:
        session.run(tensors)
    before = 0
    for number in range(num_requests):
        if number == int(WARM_SHARE * num_requests):
            before = used_bytes(device)
        session, tensors = inputs[rng.integers(len(inputs))]
        session.run(tensors)
    growth = used_bytes(device) - before
    print(f"\nmemory: {before >> 20} MiB, {growth / (1 << 20):+.1f} MiB over {num_requests:,} mixed requests")
    return [f"the memory grew by {growth >> 20} MiB"] if growth > MAX_GROWTH_BYTES else []


def _print(header: Sequence[str], *rows: Sequence[str]) -> None:
    print()
    for cells in (header, ("---",) * len(header), *rows):
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
