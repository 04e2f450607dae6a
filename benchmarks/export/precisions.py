"""Export the variants of runs in every precision, and write what they cost and save into docs/precisions.md.

    python -m benchmarks.export.precisions [NAME...] [--bundles BUNDLES] [--variants FOLDER] [--page PAGE]

A variant that is in FOLDER already is measured and not exported again; export of all of them takes minutes. The time is
that of one thread, the least of several repetitions, for random items.
"""

import argparse
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
from rich.console import Console

from export.process import ExportJob, ExportResult, export_all
from service.bundle import Bundle, Tensors, current_version, open_bundle
from service.contract.precision import PrecisionName
from service.contract.tensors import FLOATS
from service.engine.sessions.session import Session
from service.engine.verification.golden_inputs import complete_inputs
from service.manifest import Manifest

HEADER = ("model", "precision", "size", "time alone", "time in a batch", "score", "agreement", "parity")
BATCH, REPEATS, MIN_S = 32, 7, 0.05
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "precisions.md"


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 the table is written."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.export.precisions")
    parser.add_argument("names", nargs="*", help="models with a run (default: all)")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--bundles", type=Path, default=Path("bundles"), help="where the float32 bundles are")
    parser.add_argument("--variants", type=Path, default=Path("variants"), help="where the variants go")
    parser.add_argument("--page", type=Path, default=PAGE)
    args = parser.parse_args(argv)
    names = args.names or sorted(path.parent.name for path in args.runs.glob("*/checkpoint.json"))
    rows: list[tuple[str, ...]] = []
    for name in names:
        if not (args.variants / name).exists():
            shutil.copytree(args.bundles / name, args.variants / name)
        parent = _current(args.variants / name)
        kinds: tuple[PrecisionName, ...] = get_args(PrecisionName)
        rows += [_row(parent, kind, _variant(args.runs / name, kind, args.variants), args.variants) for kind in kinds]
    lines = [HEADER, ("---",) * 2 + ("---:",) * (len(HEADER) - 2), *rows]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    print(table)
    marked = re.compile("(<!-- measured: precisions -->\n).*?(?=<!-- /measured -->)", re.DOTALL)
    args.page.write_text(marked.sub(lambda found: f"{found[1]}{table}\n", args.page.read_text()))
    return 0


def _variant(run: Path, kind: PrecisionName, variants: Path) -> ExportResult:
    """The variant that is there, or a new one."""
    folder = variants / f"{run.name}-{kind}"
    if (folder / "current").is_file():
        return ExportResult(name=folder.name, manifest=_current(folder).manifest)
    [result] = export_all([ExportJob.of_run(run, kind)], variants, 1, Console(stderr=True))
    return result


def _current(folder: Path) -> Bundle:
    return open_bundle(folder / current_version(folder))


def _row(parent: Bundle, kind: PrecisionName, result: ExportResult, variants: Path) -> tuple[str, ...]:
    name = parent.manifest.name
    if result.manifest is None:
        # The sentence of the gate is long; its name and its figure are enough here.
        return (name, kind, f"refused: {result.reason.split(';')[0]}", *[""] * (len(HEADER) - 3))
    variant = _current(variants / result.name)
    times = [_times(parent, variant, batch) for batch in (1, min(BATCH, parent.manifest.limits.max_items))]
    return (
        name,
        kind,
        f"{variant.model_bytes / 1e6:.2f} MB ({variant.model_bytes / parent.model_bytes:.0%})",
        *(f"{after / before:.2f} ({after * 1e6:,.0f} µs)" for before, after in times),
        *_quality(result.manifest),
    )


def _quality(manifest: Manifest) -> Iterator[str]:
    precision = manifest.precision
    assert precision is not None
    yield f"{precision.parent_score:.4f} → {precision.score:.4f}" if precision.metric else ""
    yield f"{precision.agreement:.2%}"
    floats = [spec.name for spec in manifest.outputs if spec.dtype in FLOATS]
    yield f"{max(manifest.tolerance[name].measured for name in floats):.1e}"


def _times(parent: Bundle, variant: Bundle, batch: int) -> tuple[float, float]:
    """Seconds of CPU time for a row, of both in turn, because the frequency of the processor changes."""
    sessions = [
        Session(bundle.model, manifest=bundle.manifest, device="cpu", data=bundle.data) for bundle in (parent, variant)
    ]
    inputs = _inputs(sessions[0], parent, batch)
    best = [float("inf")] * 2
    for _ in range(REPEATS):
        for number, session in enumerate(sessions):
            best[number] = min(best[number], _measure(session, inputs) / batch)
    return best[0], best[1]


def _inputs(session: Session, bundle: Bundle, batch: int) -> Tensors:
    """Rows of the largest golden case that has the batch axis first, repeated."""
    case = max(bundle.golden, key=lambda case: len(next(iter(case.inputs.values()))))
    inputs = complete_inputs(session, case.inputs)
    return {name: np.resize(array, (batch, *array.shape[1:])) for name, array in inputs.items()}


def _measure(session: Session, inputs: Tensors) -> float:
    """Seconds of CPU time of one run."""
    session.run(inputs)
    started, count, deadline = time.process_time(), 0, time.perf_counter() + MIN_S
    while time.perf_counter() < deadline:
        session.run(inputs)
        count += 1
    return (time.process_time() - started) / count


if __name__ == "__main__":
    raise SystemExit(main())
