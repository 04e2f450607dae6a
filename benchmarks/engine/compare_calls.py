"""Compare the CPU time of one request in two checkouts, inside one process each: from the router to the answer.

    python -m benchmarks.engine.compare_calls --old PATH --new PATH [--restarts 3] [--rounds 100] [--bundles bundles]

The processes of both checkouts live side by side and answer short runs of requests in turn (old, new, old, new, ...).
The figure of each is its fastest run: whatever else the machine does only adds time. A difference of 1 % shows in this
way, which is lost in the noise of sockets and load generators. The processes are restarted some times, because the cost
model of a process that began slowly has requests computed on another thread, which costs more. Answers to the same
request must be equal byte for byte.

The last rows compare the graph of mnist-cnn as images -> labels with the same graph as tensors -> tensors. `calls`
counts the functions that a request calls, which noise cannot change; `--show CELL` lists those that differ.
"""

import argparse
import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.peers.bodies import FORMATS, EncodedRequest
from benchmarks.peers.workloads import MODELS, load_workload
from service.tasks.codecs.images import encode_png

WORKER = Path(__file__).with_name("calls.py")


@dataclass(frozen=True, kw_only=True)
class Side:
    """What one process answers for a cell."""

    checkout: str  # "old" or "new"
    model: str
    request: EncodedRequest
    as_tensors: bool = False


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A request that both sides answer; equal byte for byte if `is_equal`."""

    name: str
    old: Side
    new: Side
    is_equal: bool = True


class Measured(NamedTuple):
    """By side: µs of CPU time of a request in each run, and how often it calls each function."""

    spent_us: dict[str, list[float]]
    calls: dict[str, dict[str, int]]


class Worker:
    """The process of one checkout."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, **asked: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: PT018
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the process of a checkout has ended while it was asked for {next(iter(asked))}")
        return json.loads(line)


@contextmanager
def started(checkout: Path, args: argparse.Namespace) -> Iterator[Worker]:
    command = [args.python, "-P", str(WORKER), str(args.bundles.resolve())]
    environment = {**os.environ, "PYTHONPATH": str(checkout.resolve())}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=checkout, env=environment, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield Worker(process)
        finally:
            process.terminate()


def cells(bundles: Path, models: list[str]) -> Iterator[Cell]:
    """One item as JSON, as a PNG where it is an image, and as bytes of tensors; then 32 items as JSON."""
    for model in models:
        workload = load_workload(bundles / model)
        one = slice(0, 1)
        requests = {"JSON": FORMATS["ekiben"].encode(workload, one)}
        if "images" in workload.inputs:
            png = base64.b64encode(encode_png(workload.inputs["images"][0])).decode()
            body = json.dumps({"model": model, "images": [png]}).encode()
            requests["PNG"] = replace(requests["JSON"], body=body)
        requests["OIP, binary"] = FORMATS["v2-binary"].encode(workload, one)
        requests["OIP, JSON"] = FORMATS["v2-json"].encode(workload, one)
        requests["JSON, 32 items"] = FORMATS["ekiben"].encode(workload, slice(0, 32))
        for body, request in requests.items():
            old, new = (Side(checkout=side, model=model, request=request) for side in ("old", "new"))
            yield Cell(name=f"{model}, {body}", old=old, new=new)
        if "images" in workload.inputs:
            for body in ("OIP, binary", "OIP, JSON"):
                labels = Side(checkout="new", model=model, request=requests[body])
                path = requests[body].path.replace(model, f"{model}-tensors")
                twin = replace(requests[body], path=path)
                tensors = Side(checkout="new", model=f"{model}-tensors", request=twin, as_tensors=True)
                yield Cell(name=f"{model} as tensors, {body}", old=labels, new=tensors, is_equal=False)


def add(worker: Worker, name: str, side: Side) -> bytes:
    request = side.request
    answer: str = worker.ask(
        add=name,
        model=side.model,
        path=request.path,
        headers=dict(request.headers),
        body=base64.b64encode(request.body).decode(),
        as_tensors=side.as_tensors,
    )
    return base64.b64decode(answer)


def table(measured: dict[str, list[Measured]]) -> str:
    lines = ["| request | old, µs | new, µs | new / old | calls, old | calls, new |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, parts in measured.items():
        old, new = (min(us for part in parts for us in part.spent_us[side]) for side in ("old", "new"))
        calls = [str(sum(fewest_calls(parts, side).values())) for side in ("old", "new")]
        lines.append(f"| {name} | {old:,.1f} | {new:,.1f} | {new / old:.3f} | {' | '.join(calls)} |")
    return "\n".join(lines)


def fewest_calls(parts: list[Measured], side: str) -> dict[str, int]:
    return min((part.calls[side] for part in parts), key=lambda calls: sum(calls.values()))


def differences(old: dict[str, int], new: dict[str, int]) -> list[str]:
    """The functions that one side calls more often, with the difference, largest first."""
    changed = {name: new.get(name, 0) - old.get(name, 0) for name in {**old, **new}}
    return [f"{number:+d} {name}" for name, number in sorted(changed.items(), key=lambda item: -item[1]) if number]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, required=True, help="a checkout of the earlier revision")
    parser.add_argument("--new", type=Path, required=True, help="a checkout of the later revision")
    parser.add_argument("--python", default=sys.executable, help="the interpreter of both processes")
    parser.add_argument("--bundles", type=Path, default=Path("bundles"), help="bundles that both revisions can read")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--restarts", type=int, default=3, help="pairs of processes, one after the other")
    parser.add_argument("--rounds", type=int, default=100, help="runs of each side, for each pair of processes")
    parser.add_argument("--requests", type=int, default=20, help="of each run")
    parser.add_argument("--show", metavar="CELL", help="list the functions that one side calls more often")
    return parser.parse_args()


def measure(cell: Cell, workers: dict[str, Worker], args: argparse.Namespace) -> Measured:
    sides = {"old": (workers[cell.old.checkout], cell.old), "new": (workers[cell.new.checkout], cell.new)}
    answers = {side: add(worker, f"{cell.name} {side}", asked) for side, (worker, asked) in sides.items()}
    if cell.is_equal and answers["old"] != answers["new"]:
        raise SystemExit(f"{cell.name}: the answers differ")
    calls = {side: worker.ask(count=f"{cell.name} {side}") for side, (worker, _) in sides.items()}
    spent_us: dict[str, list[float]] = {"old": [], "new": []}
    for _ in range(args.rounds):
        for side, (worker, _) in sides.items():
            spent_us[side].append(worker.ask(run=f"{cell.name} {side}", requests=args.requests))
    return Measured(spent_us, calls)


def main() -> None:
    args = parse_args()
    args.python = str(Path(args.python).absolute())
    asked = list(cells(args.bundles, args.models))
    measured: dict[str, list[Measured]] = {cell.name: [] for cell in asked}
    for number in range(1, args.restarts + 1):
        with ExitStack() as stack:
            workers = {
                side: stack.enter_context(started(checkout, args))
                for side, checkout in (("old", args.old), ("new", args.new))
            }
            for cell in asked:
                print(f"{number}/{args.restarts} {cell.name}", file=sys.stderr)
                measured[cell.name].append(measure(cell, workers, args))
    print(table(measured))
    if args.show:
        print(
            "\n".join(differences(fewest_calls(measured[args.show], "old"), fewest_calls(measured[args.show], "new")))
        )


if __name__ == "__main__":
    main()
