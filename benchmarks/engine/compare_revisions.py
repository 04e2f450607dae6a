"""Compare two checkouts of this repository: CPU time of a request, throughput, and behaviour under overload.

    python -m benchmarks.engine.compare_revisions --old PATH --new PATH [--rounds 5] [--seconds 3] [--overload]

The services of the two checkouts run in turn (old, new, old, new, ...) on the same bundles, under the load generator of
this checkout. Each cell is one model, body, number of workers and number of connections in a closed loop: every
connection sends its next request as soon as the last one is answered. CPU time is user and system time of all processes
of the service. The table gives the median of the rounds for each checkout, and the median of the ratios new/old of the
rounds, which cancels changes of the machine's speed that last longer than a round.
"""

import argparse
import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from benchmarks.engine import overload
from benchmarks.engine.server import HOST, cpu_s, generate, serve, split_cores
from benchmarks.peers.bodies import FORMATS
from benchmarks.peers.workloads import MODELS, load_workload

BODIES = {"json": "ekiben", "binary": "v2-binary"}
OVERLOAD = ("heavy", "long")
DEADLINE_S = 10
Figures = dict[str, float]
Samples = dict[str, dict[str, list[Figures]]]  # cell -> side -> figures of each round


def request(bundles: Path, model: str, body: str) -> tuple[bytes, int]:
    """The bytes of a request for one item, and the offset of the eight digits that make each request different."""
    encoded = FORMATS[BODIES[body]].encode(load_workload(bundles / model), slice(0, 1))
    headers = {**encoded.headers, "Host": HOST, "Content-Length": str(len(encoded.body))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"POST {encoded.path} HTTP/1.1\r\n{lines}X-Request-Timeout-Ms: {DEADLINE_S * 1000}\r\nX-Number: "
    return head.encode() + b"00000000\r\n\r\n" + encoded.body, len(head)


def measure_cells(checkout: Path, workers: int, args: argparse.Namespace) -> Iterator[tuple[str, Figures]]:
    if not args.models:
        return
    service_cores, generator_cores = split_cores(workers)
    with serve(args.bundles, workers, service_cores, checkout=checkout, python=args.python) as (process, port):
        processes = [process, *process.children(recursive=True)]
        for model in args.models:
            for body in args.bodies:
                content, number_offset = request(args.bundles, model, body)
                load = {"host": HOST, "port": port, "request": content.decode("latin-1")}
                load |= {"number_offset": number_offset, "deadline_s": DEADLINE_S, "retry_rate": 0, "seed": 0}
                for connections in args.connections:
                    generate({**load, "num_clients": connections, "seconds": args.seconds / 4}, generator_cores)
                    before_s = cpu_s(processes)
                    found = generate({**load, "num_clients": connections, "seconds": args.seconds}, generator_cores)
                    spent_s = cpu_s(processes) - before_s
                    yield (
                        f"{model}, {body}, workers {workers}, connections {connections}",
                        {
                            "CPU µs/request": spent_s / found["num_sent"] * 1e6,
                            "requests/s": found["good_per_s"],
                            "not answered 200": found["num_sent"] - found["statuses"].get("200", 0),
                        },
                    )


def measure_overload(checkout: Path, workers: int, args: argparse.Namespace) -> Iterator[tuple[str, Figures]]:
    overload_args = argparse.Namespace(
        bundles=args.bundles, seconds=args.overload_seconds, times=2, retry_rate=0.02, share_cores=False
    )
    for name in OVERLOAD if args.overload else ():
        found = overload.measure(name, workers, overload_args, checkout=checkout, python=args.python)
        yield (
            f"overload {name}, workers {workers}",
            {
                "peak, requests/s": found.peak_per_s,
                "goodput, requests/s": found.goodput_of_peak * found.peak_per_s,
                "goodput / peak": found.goodput_of_peak,
                "accepted in time": found.accepted_in_time,
                "refused": found.refused,
                "refusal p50, ms": found.refusal_ms["p50"],
                "refusal p99, ms": found.refusal_ms["p99"],
                "failures": sum(found.failures.values()),
            },
        )


def table(samples: Samples) -> str:
    lines = ["| cell | measure | old | new | new / old |", "| --- | --- | ---: | ---: | ---: |"]
    for cell, sides in samples.items():
        for measure in sides["old"][0]:
            old, new = ([figures[measure] for figures in sides[side]] for side in ("old", "new"))
            ratios = [after / before for before, after in zip(old, new, strict=True) if before]
            ratio = f"{statistics.median(ratios):.3f}" if ratios else "–"
            medians = (
                f"{value:,.1f}" if value >= 10 else f"{value:.3f}" for value in map(statistics.median, (old, new))
            )
            lines.append(f"| {cell} | {measure} | {' | '.join(medians)} | {ratio} |")
    return "\n".join(lines)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, required=True, help="a checkout of the earlier revision")
    parser.add_argument("--new", type=Path, required=True, help="a checkout of the later revision")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that runs both services")
    parser.add_argument("--bundles", type=Path, default=Path("bundles"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="for each cell")
    parser.add_argument("--models", nargs="*", choices=list(MODELS), default=list(MODELS), help="none: only --overload")
    parser.add_argument("--bodies", nargs="+", choices=list(BODIES), default=list(BODIES))
    parser.add_argument("--connections", nargs="+", type=int, default=[1, 32, 128])
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--overload", action="store_true", help=f"measure the overloads {' and '.join(OVERLOAD)} too")
    parser.add_argument("--overload-seconds", type=float, default=20, help="for each overload")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("compare_revisions.json"))
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    args.python = str(Path(args.python).absolute())
    samples: Samples = defaultdict(lambda: {"old": [], "new": []})
    for number in range(1, args.rounds + 1):
        for workers in args.workers:
            for side, checkout in (("old", args.old), ("new", args.new)):
                cells = chain(measure_cells(checkout, workers, args), measure_overload(checkout, workers, args))
                for cell, figures in cells:
                    samples[cell][side].append(figures)
                    figures_text = ", ".join(f"{name} {value:,.2f}" for name, value in figures.items())
                    print(
                        f"{time.strftime('%H:%M:%S')} {number}/{args.rounds} {side}: {cell}: {figures_text}",
                        file=sys.stderr,
                    )
        args.output.write_text(json.dumps(samples, indent=1) + "\n")
    print(table(samples))


if __name__ == "__main__":
    main()
