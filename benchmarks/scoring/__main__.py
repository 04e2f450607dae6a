"""Compares the throughput of a scoring job with other methods of scoring the same files.

    python -m benchmarks.scoring [--rows 1000000] [--texts 20000] [--rounds 3] [--bundles bundles] [--only NAME ...]

The inputs are images of MNIST's size (seeded pixels as raw bytes, uncompressed Parquet files of 131,072 rows) and texts
as long as news (CSV). In each round every method runs in turn on the same cores; the table gives medians. Peak memory
is that of all processes of a method. Every method reads and writes files, except for the raw loops, whose data is in
memory: they are the upper limit. Rows/s count from when programs and models are loaded; a second column counts the
whole command.
"""

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.scoring import data
from benchmarks.scoring.measure import Measurement, measure
from benchmarks.scoring.methods import METHODS, Method


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scoring", description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bundles", type=Path, default=Path("bundles"))
    parser.add_argument("--only", nargs="*", choices=sorted(METHODS), default=list(METHODS))
    parser.add_argument(
        "--memory", action="store_true", help="peak memory of scoring a hundredth, a tenth and all of the rows"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ekiben-scoring-", dir=os.environ.get("TMPDIR")) as name:
        folder = Path(name)
        data.write_images(folder / "images", args.rows)
        data.write_texts(folder / "texts", args.texts)
        if args.memory:
            _measure_memory(folder, args.rows, args.bundles)
            return
        runs: dict[str, list[Measurement]] = {method: [] for method in args.only}
        for number in range(args.rounds):
            for method in args.only:
                available = args.rows if METHODS[method].reads == "images" else args.texts
                total = min(METHODS[method].max_rows, available)
                runs[method].append(_run(METHODS[method], folder, total, args.bundles, number))
                print(f"round {number + 1}, {method}: {runs[method][-1]}", file=sys.stderr, flush=True)
        _print_table(runs)


def _run(method: Method, folder: Path, total: int, bundles: Path, number: int) -> Measurement:
    output = folder / f"out-{method.title}-{number}".replace(" ", "-")
    return measure(method.command(folder / method.reads, output, total, bundles), total)


def _measure_memory(folder: Path, rows: int, bundles: Path) -> None:
    method = METHODS["scoring images"]
    for total in (rows // 100, rows // 10, rows):
        output = folder / f"out-{total}"
        run = measure(method.command(folder / "images", output, total, bundles), total)
        print(f"{total:,} rows: peak {run.peak_mib:,.0f} MiB, {run.rows_per_s:,.0f} rows/s")


def _print_table(runs: dict[str, list[Measurement]]) -> None:
    limits = {
        METHODS[method].reads: statistics.median(run.rows_per_s for run in measured)
        for method, measured in runs.items()
        if METHODS[method].is_limit
    }
    print("| method | rows | rows/s | of the raw loop | rows/s, whole command | CPU µs per row | peak MiB |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for method, measured in runs.items():
        rate = statistics.median(run.rows_per_s for run in measured)
        whole = statistics.median(run.whole_rows_per_s for run in measured)
        cpu = statistics.median(run.cpu_us for run in measured)
        peak = max(run.peak_mib for run in measured)
        limit = limits.get(METHODS[method].reads)
        share = f"{rate / limit:.2f}" if limit else "-"
        print(
            f"| {METHODS[method].title} | {measured[0].rows:,} | {rate:,.0f} | {share} | {whole:,.0f} | {cpu:.1f} "
            f"| {peak:,.0f} |"
        )


if __name__ == "__main__":
    main()
