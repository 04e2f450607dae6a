"""python -m service.scoring status OUTPUT [--json]

The state of a job, or of the jobs of several models below OUTPUT, from the output alone: finished, running or stopped,
with the progress of each process that runs it. Exit codes: 0, finished or running; 1, one has stopped before its end:
the same command resumes it; 2, no job is there.
"""

import argparse
import json
import os
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from service.scoring.job import ScoringError
from service.scoring.output.ledger import Ledger
from service.scoring.passes.folders import subfolders
from service.scoring.progress import Snapshot
from service.scoring.storage.location import parse_location

# A process that has not written its progress for so long is not running any more.
STALE_S = 60.0
EXIT_STOPPED, EXIT_NO_JOB = 1, 2


class ProgressFile:
    """Writes the progress of this process into the ledger of the job, for `status`."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._name = f"{socket.gethostname()}-{os.getpid()}"

    def __call__(self, snapshot: Snapshot) -> None:
        content = {**asdict(snapshot), "host": socket.gethostname(), "pid": os.getpid(), "updated_at": time.time()}
        self._ledger.save_progress(self._name, content)


def read_status(output: str | Path) -> dict[str, Any] | None:
    """Return the state of a job, its model, committed rows, and the processes that run it; None if there is no job.

    `output` is a path or a `Location.uri`.
    """
    with closing(Ledger(output)) as ledger:
        return _read(ledger)


def _read(ledger: Ledger) -> dict[str, Any] | None:
    job = ledger.read_job()
    if job is None:
        return None
    records = list(ledger.records())
    processes = [content for content in ledger.read_progress() if _is_running(content)]
    state = "finished" if ledger.has_finished() else "running" if processes else "stopped"
    rows = sum(record.scored + record.rejected for record in records)
    return {
        "state": state,
        "model": job["model"],
        "version": job["version"],
        "shards": len(records),
        "rows": rows,
        "rejected": sum(record.rejected for record in records),
        "planned": rows if state == "finished" else max((process["planned"] for process in processes), default=None),
        "rows_per_s": sum(process["rows_per_s"] for process in processes),
        "seconds_left": _seconds_left(rows, processes),
        "workers": sum(process["workers"] for process in processes),
        "processes": processes,
    }


def command_parser(parser_class: type[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = parser_class(prog="python -m service.scoring status", description="Show the state of a job.")
    parser.add_argument("output", metavar="OUTPUT", help="the folder or URI that the job writes to")
    parser.add_argument("--json", action="store_true", help="print the state as JSON")
    return parser


def main(arguments: list[str], parser_class: type[argparse.ArgumentParser] = argparse.ArgumentParser) -> int:
    args = command_parser(parser_class).parse_args(arguments)
    try:
        output = parse_location(args.output, option="OUTPUT")
        status = read_status(output.uri)
        places = {"": output} if status is not None else subfolders(output)
        found = {name: state for name, place in places.items() if (state := status or read_status(place.uri))}
    except (ScoringError, OSError) as error:
        print(f"failed: {error}", file=sys.stderr)
        return EXIT_STOPPED
    if not found:
        print(f"{output}: no scoring job is there", file=sys.stderr)
        return EXIT_NO_JOB
    if args.json:
        print(json.dumps(found.get("", {"models": found})))
    else:
        print("\n".join(_describe(str(places[name]), state) for name, state in found.items()))
    return EXIT_STOPPED if any(state["state"] == "stopped" for state in found.values()) else 0


def _describe(output: str, status: Mapping[str, Any]) -> str:
    planned = "" if status["planned"] is None else f" of {status['planned']:,}"
    lines = [
        f"{output}: {status['state']}, {status['model']} {status['version']}",
        f"rows       {status['rows']:,}{planned} committed in {status['shards']:,} shards",
        f"rejected   {status['rejected']:,}",
    ]
    if status["processes"]:
        left = "unknown" if status["seconds_left"] is None else f"{status['seconds_left']:,.0f} s"
        lines += [
            f"rate       {status['rows_per_s']:,.0f} rows/s",
            f"time left  {left}",
            f"workers    {status['workers']} of {len(status['processes'])} processes",
        ]
    return "\n".join(lines)


def _seconds_left(rows: int, processes: list[dict[str, Any]]) -> float | None:
    rate = sum(process["rows_per_s"] for process in processes)
    if not rate or not all(process["is_planned"] for process in processes):
        return None
    return float(max(max(process["planned"] for process in processes) - rows, 0) / rate)


def _is_running(content: Mapping[str, Any]) -> bool:
    if time.time() - content["updated_at"] > STALE_S:
        return False
    return bool(content["host"] != socket.gethostname() or Path(f"/proc/{content['pid']}").exists())
