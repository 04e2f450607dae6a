"""Runs a job as a command: what is printed, and the exit code."""

import json
import logging
import signal
import sys
import threading
from collections.abc import Mapping
from typing import Any

from service.errors import BundleError, DeviceError
from service.scoring.command.parser import ParserClass, command_parser
from service.scoring.drift.report import describe_drift
from service.scoring.job import ScoringError
from service.scoring.output.rejects import loggable
from service.scoring.result import Result
from service.scoring.run import score
from service.scoring.storage.location import parse_location
from service.scoring.watch.reporter import Display

EXIT_REJECTED, EXIT_CHANGED, EXIT_FAILED, EXIT_TERMINATED = 3, 4, 1, 143
# Files that are named on standard error; the summary has all of them.
NAMED_FILES = 20


def run(arguments: list[str], parser_class: ParserClass) -> int:
    """Run the command and return its exit code; SIGTERM ends the job from now on. Raises KeyboardInterrupt."""
    options = vars(command_parser(parser_class).parse_args(arguments))
    as_json, max_rejects = options.pop("json"), options.pop("max_rejects")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    options |= {"columns": dict(options["columns"]), "request": dict(options["request"])}
    models = options.pop("models")
    terminated = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: terminated.set())
    try:
        display: Display = "bar" if sys.stderr.isatty() and not as_json else "lines"
        options |= {"check": False, "display": display, "cancel": terminated}
        # One model writes to the output, several write to folders below it.
        results: dict[str, Result] = score(models, **options) if len(models) > 1 else {"": score(*models, **options)}
    except (ScoringError, BundleError, DeviceError) as error:
        return _report_failures([str(error)], as_json=as_json)
    finished = {name: result.summary for name, result in results.items() if result.summary is not None}
    failures = list(dict.fromkeys(failure for result in results.values() for failure in result.failures))
    computed = max(result.computed for result in results.values())
    if len(finished) < len(results) and not failures and terminated.is_set():
        dropped = max(result.dropped for result in results.values())
        text = f", {dropped} shards in progress were dropped" if dropped else ""
        print(f"terminated after {computed:,} rows{text}; the same command resumes the job", file=sys.stderr)
        return EXIT_TERMINATED
    if len(finished) < len(results):
        return _report_failures(failures, as_json=as_json, computed=computed)
    if as_json:
        documents = {
            name: {**summary, "computed": results[name].computed, "seconds": round(results[name].seconds, 3)}
            for name, summary in finished.items()
        }
        print(json.dumps(documents.get("", {"models": documents})))
    else:
        for name, summary in finished.items():
            print(_result_line(results[name], summary, results[name].output if name else options["output"]))
    for summary in finished.values():
        _report_changes(summary.get("input_changes", {}))
    has_changed = any(result.changed for result in results.values()) and not options["ignore_changed"]
    is_rejected = any(result.reject_share > max_rejects for result in results.values())
    if is_rejected:
        print(
            f"exit code {EXIT_REJECTED}: more rows were rejected than --max-rejects {max_rejects:g} allows; "
            "their reasons are in the folder rejects of the output",
            file=sys.stderr,
        )
    return EXIT_REJECTED if is_rejected else EXIT_CHANGED if has_changed else 0


def _report_changes(changes: Mapping[str, list[str]]) -> None:
    reasons = {"changed": "was changed after it was scored", "deleted": "was deleted after it was scored"}
    for kind, reason in reasons.items():
        names = changes.get(kind, [])
        for name in names[:NAMED_FILES]:
            print(f"{loggable(name)}: {reason}; its predictions stay as they are", file=sys.stderr)
        if len(names) > NAMED_FILES:
            print(f"{len(names) - NAMED_FILES:,} more: {reason}, see summary.json", file=sys.stderr)


def _report_failures(failures: list[str], *, as_json: bool, computed: int = 0) -> int:
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    if as_json:
        print(json.dumps({"failures": failures, "computed": computed}))
    return EXIT_FAILED


def _result_line(result: Result, summary: Mapping[str, Any], output: str) -> str:
    rate = result.computed / max(result.seconds, 1e-9)
    done = f"{result.computed:,} rows in {result.seconds:.1f} s ({rate:,.0f}/s)" if result.computed else "nothing to do"
    # Options of a URI may be credentials.
    place = str(parse_location(output, option="--output")) if "://" in output else output
    counts = f"{summary['scored']:,} scored, {summary['rejected']:,} rejected"
    drift = describe_drift(summary["drift"])
    return f"{place}: {done}; {counts} by {summary['model']} {summary['version']}{drift and '; ' + drift}"
