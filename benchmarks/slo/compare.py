"""The highest rate of this service, Triton's Python backend and FastAPI that keeps a latency bound.

    python -m benchmarks.slo.compare [--servers ekiben triton fastapi] [--p99-ms 20] [--seconds 5] [--workers 1]

All servers run the same graph on the same machine, one after the other, as in `benchmarks.peers`, whose environments
and checks of answers are used. The client needs a core of its own, so that two cores leave one to the server. Writes
the table of docs/capacity.md.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.peers.bodies import FORMATS
from benchmarks.peers.check import check, wait_until_ready
from benchmarks.peers.processes import PeerError, Server
from benchmarks.peers.registry import PEERS
from benchmarks.peers.workloads import NUM_ITEMS, load_workload
from ekiben.bench.assessment import Assessment, assess
from ekiben.bench.report import describe, plot, summarise, table, write_json
from ekiben.bench.runs import Scenario, Target
from ekiben.bench.samples import Samples, http_request

TITLES = {"ekiben": "Ekiben", "triton": "Triton, Python backend", "fastapi": "FastAPI and onnxruntime, by hand"}
CAPACITY = Path(__file__).parents[2] / "docs" / "capacity.md"
BEGIN, END = "<!-- measured: capacity -->\n", "<!-- /measured -->"


def measure_server(name: str, args: argparse.Namespace) -> Assessment:
    peer = PEERS[name]
    workload = load_workload(args.bundles / args.model)
    format_name = peer.format_name("binary", args.model)
    assert format_name
    wire_format = FORMATS[format_name]
    with Server(peer, workers=args.workers, models={args.model: workload.file}, bundles=args.bundles) as server:
        wait_until_ready(server, workload, [wire_format])
        check(server, peer, workload, wire_format)
        url = f"http://127.0.0.1:{server.port}"
        encoded = [wire_format.encode(workload, slice(i, i + 1)) for i in range(NUM_ITEMS)]
        samples = Samples(requests=[http_request(url, one.path, one.headers, one.body) for one in encoded])
        return assess(
            Target(url=url, samples=samples),
            args.model,
            scenarios=[Scenario.SINGLE_STREAM, Scenario.SERVER],
            p99_ms=args.p99_ms,
            seconds=args.seconds,
            on_run=lambda run: print(describe(run), flush=True),
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", nargs="+", choices=list(TITLES), default=list(TITLES))
    parser.add_argument("--model", default="mnist-cnn")
    parser.add_argument("--p99-ms", type=float, default=20.0)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--bundles", type=Path, default=Path("bundles"))
    parser.add_argument("--out", type=Path, default=Path("build/slo"), help="folder for a JSON and a PNG file a server")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    assessments: dict[str, Assessment] = {}
    for name in args.servers:
        print(name, flush=True)
        try:
            assessment = measure_server(name, args)
        except PeerError as error:
            print(f"{name}: {error}", file=sys.stderr)
            continue
        print(summarise(assessment))
        write_json(assessment, args.out / f"{name}.json")
        plot(assessment, args.out / f"{name}.png")
        assessments[TITLES[name]] = assessment
    rows = table(assessments)
    print(rows)
    if len(assessments) == len(TITLES):
        before, _, rest = CAPACITY.read_text().partition(BEGIN)
        CAPACITY.write_text(f"{before}{BEGIN}{rows}\n{END}{rest.partition(END)[2]}")
    return 0 if len(assessments) == len(args.servers) else 1


if __name__ == "__main__":
    sys.exit(main())
