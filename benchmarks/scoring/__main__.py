"""How fast a scoring job is, next to other ways to do the same.

    python -m benchmarks.scoring [--rows 1000000] [--texts 20000] [--rounds 3] [--bundles bundles] [--only NAME ...]

MNIST-sized rows are made once (seeded pixels, Parquet files of 131,072 rows, raw bytes, not compressed) and news-like
texts (CSV). All ways run on the same cores, in turn, in every round; the table gives the median. Peak memory is
that of the whole process tree. What is compared is the whole way from file to file, but for the raw loops, whose data
is in memory: they are the limit. Rates count from when programs and models are loaded; whole commands beside them.
"""

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.scoring import data
from benchmarks.scoring.measure import Measurement, measure
from benchmarks.scoring.ways import WAYS, Way


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scoring", description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bundles", type=Path, default=Path("bundles"))
    parser.add_argument("--only", nargs="*", choices=sorted(WAYS), default=sorted(WAYS, key=list(WAYS).index))
    parser.add_argument(
        "--memory", action="store_true", help="peak memory of scoring at a hundredth of the rows, at a tenth and at all"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ekiben-scoring-", dir=os.environ.get("TMPDIR")) as name:
        folder = Path(name)
        data.write_images(folder / "images", args.rows)
        data.write_texts(folder / "texts", args.texts)
        if args.memory:
            _memory(folder, args.rows, args.bundles)
            return
        found: dict[str, list[Measurement]] = {way: [] for way in args.only}
        for number in range(args.rounds):
            for way in args.only:
                total = min(WAYS[way].most_rows, args.rows if WAYS[way].reads == "images" else args.texts)
                found[way].append(_run(WAYS[way], folder, total, args.bundles, number))
                print(f"round {number + 1}, {way}: {found[way][-1]}", file=sys.stderr, flush=True)
        _table(found)


def _run(way: Way, folder: Path, total: int, bundles: Path, number: int) -> Measurement:
    output = folder / f"out-{way.title}-{number}".replace(" ", "-")
    return measure(way.command(folder / way.reads, output, total, bundles), total)


def _memory(folder: Path, rows: int, bundles: Path) -> None:
    way = WAYS["scoring images"]
    for total in (rows // 100, rows // 10, rows):
        output = folder / f"out-{total}"
        found = measure(way.command(folder / "images", output, total, bundles), total)
        print(f"{total:,} rows: peak {found.peak_mib:,.0f} MiB, {found.rows_per_s:,.0f} rows/s")


def _table(found: dict[str, list[Measurement]]) -> None:
    limits = {
        reads: max(
            (
                statistics.median(m.rows_per_s for m in runs)
                for way, runs in found.items()
                if WAYS[way].limit_of == reads
            ),
            default=0.0,
        )
        for reads in ("images", "texts")
    }
    print("| way | rows | rows/s | of the raw loop | rows/s, whole command | CPU µs a row | peak MiB |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for way, runs in found.items():
        rate, whole = (
            statistics.median(getattr(run, name) for run in runs) for name in ("rows_per_s", "whole_rows_per_s")
        )
        cpu = statistics.median(run.cpu_us for run in runs)
        limit = limits[WAYS[way].reads]
        share = f"{rate / limit:.2f}" if limit else "-"
        peak = max(run.peak_mib for run in runs)
        print(
            f"| {WAYS[way].title} | {runs[0].rows:,} | {rate:,.0f} | {share} | {whole:,.0f} | {cpu:.1f} | {peak:,.0f} |"
        )


if __name__ == "__main__":
    main()
