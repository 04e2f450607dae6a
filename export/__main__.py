"""`python -m export runs/NAME...`, or `python -m export module|onnx|hf|keras MODEL`: turn models into proven bundles.

`python -m export inspect FILE` writes a first spec of a model. A refused model is reported with its reason, leaves no
files, and makes the exit status 1.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from export.errors import one_sentence
from export.process import ExportJob, ExportResult, export_all
from export.sources.arguments import add_inspect_arguments, add_precision
from export.sources.registry import WAYS, parse_source
from export.table import row
from service.container.limits import available_cores

SUMMARY_WIDTH = 140
INSPECT = "inspect"
# The exit status of a command that SIGINT ended, as shells report it.
INTERRUPTED = 130
INSPECT_HELP = "write a first spec.toml of a model"
ParserClass = type[argparse.ArgumentParser]


def main(argv: Sequence[str] | None = None, parser_class: ParserClass = argparse.ArgumentParser) -> int:
    """Exit status: 0 every bundle written, 1 some models refused, 2 wrong usage, 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    command = words[0] if words else ""
    if command == INSPECT:
        return _inspect(words[1:], parser_class)
    return _export_model(words, parser_class) if command in WAYS else _export_runs(words, parser_class)


def runs_parser(parser_class: ParserClass = argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The parser of the command for runs."""
    listing = "".join(f"\n  {name:8} {way.help}" for name, way in WAYS.items())
    parser = parser_class(
        prog="python -m export",
        description="Export finished runs, with proof.",
        epilog=f"models from elsewhere, each with --help:{listing}\n  {INSPECT:8} {INSPECT_HELP}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="a run folder, such as runs/mnist-cnn")
    parser.add_argument("--bundles", type=Path, default=Path("bundles"), help="where bundles go (default: bundles)")
    parser.add_argument(
        "--jobs", type=int, default=available_cores(), help="models exported at a time (default: one per core)"
    )
    add_precision(parser)
    return parser


def inspect_parser(parser_class: ParserClass = argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The parser of the command for a first spec."""
    parser = parser_class(prog=f"python -m export {INSPECT}", description=f"{INSPECT_HELP.capitalize()}.")
    add_inspect_arguments(parser)
    return parser


def _export_runs(words: Sequence[str], parser_class: ParserClass) -> int:
    parser = runs_parser(parser_class)
    options = parser.parse_args(words)
    if options.jobs < 1:
        parser.error(f"--jobs {options.jobs}: expected 1 or more")
    if file := next((path for path in options.runs if path.is_file()), None):
        parser.error(
            f"{file} is a file, expected a folder that training wrote; `{parser.prog} module --help` takes weights of "
            "PyTorch, and the other commands of --help other models"
        )
    jobs = [ExportJob.of_run(folder, options.precision) for folder in dict.fromkeys(options.runs)]
    return _export(jobs, options.bundles, options.jobs)


def _export_model(words: Sequence[str], parser_class: ParserClass) -> int:
    _, command, options = parse_source(words, parser_class)
    name = options.name or str(options.model)
    job = ExportJob(name=name, command=command, options=options, precision=options.precision)
    return _export([job], options.bundles, 1)


def _export(jobs: Sequence[ExportJob], bundles: Path, num_processes: int) -> int:
    console = Console(stderr=True)
    try:
        results = export_all(jobs, bundles, num_processes, console)
    except KeyboardInterrupt:
        print("interrupted: what was not finished is not there", file=sys.stderr)
        return INTERRUPTED
    _print_summary(results, console)
    refused = [result for result in results if result.manifest is None]
    for result in refused:
        print(f"{result.name}: refused: {result.reason}", file=sys.stderr)
    return 1 if refused else 0


def _inspect(words: Sequence[str], parser_class: ParserClass) -> int:
    options = inspect_parser(parser_class).parse_args(words)
    # Only this command needs torch and onnx in the process that reads the command line.
    from export.inspection.report import inspect_file  # noqa: PLC0415

    try:
        seen = inspect_file(options.file)
        if options.output is not None:
            options.output.write_text(seen.spec, encoding="utf-8")
    # The readers of torch and onnx raise whatever a broken file makes them raise.
    except Exception as error:  # noqa: BLE001
        print(f"{options.file}: {one_sentence(error)}", file=sys.stderr)
        return 1
    print(seen.text, file=sys.stderr)
    if options.output is None:
        print(seen.spec, end="")
    return 0


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
