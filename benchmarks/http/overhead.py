"""What settings, or a change of the code, cost a request: CPU time of the service, by turns with the one without them.

    python -m benchmarks.http.overhead --old . --new . EKIBEN_ACCESS_LOG=1 [--header "Authorization: Bearer ek_…"]
    python -m benchmarks.http.overhead --old PATH --new . [--rounds 5] [--slices 8] [--seconds 0.5]

Each side is a checkout and the variables of its service. In each round both services are started on the same cores, in
every other round in the opposite order, and live side by side; short slices of load go to them by turns (old, new, new,
old, …), so that whatever else the machine does falls on both. The figure of a round is the ratio of their CPU times
of a request, of all threads by the clocks of their processes. The request is one item as binary tensors; `--header` is
one that both sides receive. An answer other than 200 ends the benchmark. Two equal sides show how much is noise.
"""

import argparse
import os
import statistics
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.engine.compare_revisions import request
from benchmarks.engine.server import HOST, generate, serve, split_cores

SIDES = ("old", "new")


@dataclass(frozen=True, kw_only=True)
class Side:
    """A checkout, and the variables that its service is started with."""

    checkout: Path
    variables: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class RunningSide:
    processes: list[psutil.Process]
    port: int

    def spent_us(self, content: bytes, number_offset: int, seconds: float, connections: int, cores: list[int]) -> float:
        """CPU time of one request in µs."""
        load = {"host": HOST, "port": self.port, "request": content.decode("latin-1"), "seed": 0}
        load |= {"number_offset": number_offset, "deadline_s": 10, "retry_rate": 0}
        before_ns = cpu_ns(self.processes)
        found = generate({**load, "num_clients": connections, "seconds": seconds}, cores)
        spent_ns = cpu_ns(self.processes) - before_ns
        if found["statuses"].keys() != {"200"}:
            sys.exit(f"port {self.port}: expected every answer to be 200, got {found['statuses']}")
        return spent_ns / found["num_sent"] / 1e3


def cpu_ns(processes: list[psutil.Process]) -> int:
    """The CPU time of the processes, of all their threads, in ns."""
    # The clock of another process, as clock_getcpuclockid(3) names it on Linux: finer than the ticks of psutil.
    return sum(time.clock_gettime_ns((~process.pid << 3) | 2) for process in processes)


def measure_round(sides: dict[str, Side], args: argparse.Namespace) -> dict[str, float]:
    """The median CPU time of a request by side, in µs; the services are started in the order of `sides`."""
    service_cores, generator_cores = split_cores(1)
    content, offset = request(args.bundles, args.model, "binary")
    added = "".join(f"{header}\r\n" for header in args.header).encode()
    start = content.index(b"\r\n") + 2
    content, offset = content[:start] + added + content[start:], offset + len(added)
    with ExitStack() as stack:
        running = {}
        for name, side in sides.items():
            started = serve(
                args.bundles, 1, service_cores, checkout=side.checkout, python=args.python, variables=side.variables
            )
            process, port = stack.enter_context(started)
            running[name] = RunningSide(processes=[process, *process.children(recursive=True)], port=port)
        for side in running.values():
            side.spent_us(content, offset, 1.0, args.connections, generator_cores)
        spent: dict[str, list[float]] = {name: [] for name in SIDES}
        for number in range(args.slices):
            for name in SIDES if number % 2 == 0 else reversed(SIDES):
                spent[name].append(
                    running[name].spent_us(content, offset, args.seconds, args.connections, generator_cores)
                )
    return {name: statistics.median(figures) for name, figures in spent.items()}


def parse_side(words: list[str]) -> Side:
    checkout, *variables = words
    if malformed := [word for word in variables if "=" not in word]:
        raise SystemExit(f"expected NAME=VALUE behind the checkout, got {malformed[0]!r}")
    return Side(checkout=Path(checkout).resolve(), variables=dict(word.split("=", 1) for word in variables))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in SIDES:
        parser.add_argument(f"--{name}", nargs="+", required=True, metavar="WORD", help="CHECKOUT [NAME=VALUE ...]")
    parser.add_argument("--header", action="append", default=[], help="a header of every request, as `Name: value`")
    parser.add_argument("--model", default="mnist-cnn")
    parser.add_argument("--bundles", type=Path, default=Path("bundles"))
    parser.add_argument("--python", default=sys.executable, help="the interpreter that runs both services")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slices", type=int, default=8, help="of load on each side, in each round")
    parser.add_argument("--seconds", type=float, default=0.5, help="of each slice")
    parser.add_argument("--connections", type=int, default=8)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    args.python = os.path.abspath(args.python)  # noqa: PTH100 - a link to the interpreter stays a link
    sides = {name: parse_side(getattr(args, name)) for name in SIDES}
    rounds = []
    print("| round | old, µs | new, µs | new / old |\n| --- | ---: | ---: | ---: |")
    for number in range(1, args.rounds + 1):
        rounds.append(measure_round(sides if number % 2 else dict(reversed(sides.items())), args))
        old, new = (rounds[-1][name] for name in SIDES)
        print(f"| {number} | {old:.1f} | {new:.1f} | {new / old:.3f} |", flush=True)
    old, new = (statistics.median(figures[name] for figures in rounds) for name in SIDES)
    ratio = statistics.median(figures["new"] / figures["old"] for figures in rounds)
    print(f"| median | {old:.1f} | {new:.1f} | {ratio:.3f} |")


if __name__ == "__main__":
    main()
