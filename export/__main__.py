"""python -m export runs/NAME...: turn finished runs into proven bundles.

What is refused is named with its reason, and nothing of it is written; the exit status then is 1.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from export.process import Outcome, export_all
from export.table import row


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 all written, 1 some refused, 2 wrong usage."""
    arguments = argparse.ArgumentParser(prog="python -m export", description="Export finished runs, with proof.")
    arguments.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="a run folder, such as runs/mnist-cnn")
    arguments.add_argument("--bundles", type=Path, default=Path("bundles"), help="where bundles go (default: bundles)")
    arguments.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="models at a time (default: one a core)"
    )
    options = arguments.parse_args(argv)
    if options.jobs < 1:
        arguments.error(f"--jobs {options.jobs}: expected 1 or more")
    console = Console(stderr=True)
    outcomes = export_all(options.runs, options.bundles, options.jobs, console)
    _summarise(outcomes, console)
    refused = [outcome for outcome in outcomes if outcome.manifest is None]
    for outcome in refused:
        print(f"{outcome.name}: refused: {outcome.reason}", file=sys.stderr)
    return 1 if refused else 0


def _summarise(outcomes: Sequence[Outcome], console: Console) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("model", "version", "on the test split", "difference", "in a batch"):
        table.add_column(heading, no_wrap=True)
    for outcome in outcomes:
        if outcome.manifest is None:
            table.add_row(outcome.name, "[red]refused")
        else:
            _, _, _, metric, difference, _, invariance, _ = row(outcome.manifest)
            table.add_row(outcome.name, outcome.manifest.version, metric, difference, invariance)
    console.print(table, soft_wrap=True)


if __name__ == "__main__":
    raise SystemExit(main())
