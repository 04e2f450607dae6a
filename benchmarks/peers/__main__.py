"""Measure Ekiben and its peers: the same ONNX files, bodies and load, one server after the other.

    make bench-peers                                            everything, which takes hours
    python -m benchmarks.peers --peers triton fastapi ekiben-bentoml --models mnist-cnn --repeats 1

Each peer is installed into an environment of its own under .peers/. Every launch is first checked against onnxruntime;
a wire format with incorrect responses is not timed. The order of the launches is shuffled anew for each repeat, and the
results are written after each repeat.
"""

import argparse
import os
import random
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.bodies import FORMATS, WireFormat
from benchmarks.peers.check import check, wait_until_ready
from benchmarks.peers.load import Load, Point, generator, measure, measure_loop
from benchmarks.peers.processes import PeerError, Server, install
from benchmarks.peers.registry import PEERS, Body, Peer
from benchmarks.peers.report import medians, plot, write
from benchmarks.peers.workloads import LARGE_MODELS, MODELS, Workload, load_workload

MANY_ROWS, MANY_ROWS_CONNECTIONS = 32, 8
LOOP_PEER = "limit-ort"
Result = Point | tuple[str, str]  # a point, or the name of a failed measurement and the reason


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One start of one peer with one model, so that no peer bears the cost of models that are not measured."""

    peer: str
    workers: int
    model: str

    @property
    def label(self) -> str:
        return self.peer if self.workers == 1 else f"{self.peer}-w{self.workers}"


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--peers", nargs="+", choices=list(PEERS), default=list(PEERS), metavar="PEER", help="of: " + ", ".join(PEERS)
    )
    parser.add_argument("--models", nargs="+", choices=[*MODELS, *LARGE_MODELS], default=list(MODELS))
    parser.add_argument("--bodies", nargs="+", choices=["json", "binary"], default=["json", "binary"])
    parser.add_argument("--rows", nargs="+", type=int, choices=[1, MANY_ROWS], default=[1, MANY_ROWS])
    parser.add_argument("--loop-rows", nargs="+", type=int, help="items of a run of the bare loop (default: --rows)")
    parser.add_argument("--connections", nargs="+", type=int, default=[1, 8, 32, 128])
    parser.add_argument("--workers", nargs="+", type=int, choices=[1, 2], default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5, help="duration of each measurement")
    parser.add_argument("--bundles", type=Path, default=Path("bundles"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder for results.json, .md and .png")
    parser.add_argument("--install", action="store_true", help="install the environments and stop")
    return parser.parse_args()


def load_points(args: argparse.Namespace, model: str, body: str) -> Iterator[Load]:
    for rows in args.rows:
        for connections in args.connections if rows == 1 else [MANY_ROWS_CONNECTIONS]:
            yield Load(model=model, body=body, rows=rows, connections=connections)


def run_server(
    label: str, server: Server, peer: Peer, workload: Workload, args: argparse.Namespace
) -> Iterator[Result]:
    formats: dict[Body, WireFormat] = {
        body: FORMATS[name] for body in args.bodies if (name := peer.format_name(body, workload.model))
    }
    with server:
        wait_until_ready(server, workload, list(formats.values()))
        for body, wire_format in formats.items():
            try:
                difference = check(server, peer, workload, wire_format)
                print(f"  {body}: agrees with onnxruntime, largest difference {difference:.1g}", flush=True)
                for number, load in enumerate(load_points(args, workload.model, body)):
                    warm_up_s = max(1, args.seconds // 4) if number else args.seconds
                    yield measure(label, server, load, workload, wire_format, seconds=args.seconds, warm_up_s=warm_up_s)
            except PeerError as error:
                yield f"{label}, {workload.model}, {body}", str(error)


def run_loop(
    label: str, server: Server, workers: int, workload: Workload, args: argparse.Namespace
) -> Iterator[Result]:
    """Measure onnxruntime without a server; the number of threads takes the place of the number of connections."""
    for rows in (args.loop_rows or args.rows) if "binary" in args.bodies else ():
        load = Load(model=workload.model, body="binary", rows=rows, connections=workers)
        yield measure_loop(label, server, load, workload, FORMATS["raw"], seconds=args.seconds)


def run_launch(launch: Launch, workload: Workload, args: argparse.Namespace) -> Iterator[Result]:
    peer = PEERS[launch.peer]
    try:
        server = Server(peer, workers=launch.workers, models={workload.model: workload.file}, bundles=args.bundles)
        if launch.peer == LOOP_PEER:
            yield from run_loop(launch.label, server, launch.workers, workload, args)
        else:
            yield from run_server(launch.label, server, peer, workload, args)
    except PeerError as error:
        yield f"{launch.label}, {workload.model}", str(error)


def estimate_minutes(launches: list[Launch], args: argparse.Namespace) -> float:
    """The time of all points with their warm-up, and about 8 seconds for each launch and its check."""
    total_s = 0.0
    for each in launches:
        bodies = [body for body in args.bodies if PEERS[each.peer].format_name(body, each.model)]
        points = sum(len(list(load_points(args, each.model, body))) for body in bodies)
        total_s += 8 + len(bodies) * args.seconds + points * (args.seconds + max(1, args.seconds // 4))
    return total_s * args.repeats / 60


def main() -> None:
    args = parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    for environment in dict.fromkeys(PEERS[name].environment for name in args.peers if PEERS[name].environment):
        try:
            install(environment)
        except PeerError as error:
            print(f"{environment}: {error}", flush=True)
    if args.install:
        return
    workloads = {model: load_workload(args.bundles / model) for model in args.models}
    launches = [
        Launch(peer=name, workers=workers, model=model)
        for name in args.peers
        for workers in PEERS[name].workers
        if workers in args.workers
        for model in args.models
    ]
    if generator() != "wrk":
        print("wrk is not on PATH (it is a Debian package): a slower load generator is used", flush=True)
    print(f"about {estimate_minutes(launches, args):.0f} minutes", flush=True)
    runs: list[Point] = []
    failures: dict[str, str] = {}
    settings = {"repeats": args.repeats, "seconds": args.seconds}
    for repeat in range(args.repeats):
        random.Random(repeat).shuffle(launches)
        for number, each in enumerate(launches, start=1):
            progress = f"{repeat + 1}/{args.repeats} {number}/{len(launches)}"
            print(f"{progress} {each.label}, {each.model} (load average {os.getloadavg()[0]:.1f})", flush=True)
            for result in run_launch(each, workloads[each.model], args):
                if isinstance(result, Point):
                    runs.append(result)
                    print(f"  {result.summary()}", flush=True)
                else:
                    failures[result[0]] = result[1]
                    print(f"  not measured: {result[1]}", flush=True)
            write(args.out, runs, failures, settings)
        if runs:
            plot(medians(runs), args.out / "results.png")
    print((args.out / "results.md").read_text())


if __name__ == "__main__":
    main()
