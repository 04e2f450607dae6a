"""`python -m export runs/NAME...`: turn finished runs into proven bundles.

A refused run is reported with its reason, leaves no files, and makes the exit status 1.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from export.process import ExportResult, export_all
from export.table import row

SUMMARY_WIDTH = 140


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 every bundle written, 1 some runs refused, 2 wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m export", description="Export finished runs, with proof.")
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="a run folder, such as runs/mnist-cnn")
    parser.add_argument("--bundles", type=Path, default=Path("bundles"), help="where bundles go (default: bundles)")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="models exported at a time (default: one per core)"
    )
    options = parser.parse_args(argv)
    if options.jobs < 1:
        parser.error(f"--jobs {options.jobs}: expected 1 or more")
    console = Console(stderr=True)
    results = export_all(options.runs, options.bundles, options.jobs, console)
    _print_summary(results, console)
    refused = [result for result in results if result.manifest is None]
    for result in refused:
        print(f"{result.name}: refused: {result.reason}", file=sys.stderr)
    return 1 if refused else 0


def _print_summary(results: Sequence[ExportResult], console: Console) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("model", "version", "on the test split", "difference", "in a batch"):
        table.add_column(heading, no_wrap=True)
    for result in results:
        if result.manifest is None:
            table.add_row(result.name, "[red]refused")
        else:
            _, _, _, metric, difference, _, invariance, _ = row(result.manifest)
            table.add_row(result.name, result.manifest.version, metric, difference, invariance)
    # Rich would cut names and metrics to the 80 columns of an output that is not a terminal.
    console.width = max(console.width, SUMMARY_WIDTH)
    console.print(table, soft_wrap=True)


if __name__ == "__main__":
    raise SystemExit(main())
