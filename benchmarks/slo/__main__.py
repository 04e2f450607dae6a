"""Find the highest rate at which a service keeps a latency bound, with MLPerf's LoadGen.

    python -m benchmarks.slo --url http://127.0.0.1:3000 --model mnist-cnn --p99-ms 20
    python -m benchmarks.slo --url ... --model mnist-cnn --scenario all --data runs/mnist-cnn/test.safetensors

Measures any server of the Open Inference Protocol over HTTP. `server` sends at random times (a Poisson process), as
independent users do, and searches for the highest rate whose 99th percentile keeps the bound; a latency counts from the
moment at which a request was due, so that a server that stalls cannot hide it. `single-stream` and `multi-stream` send
one and eight items when the last are answered, `offline` all at once; `accuracy` compares the label of every item of
--data. Exit code 0: the bound is kept and every query was answered; 1: not; 2: the command or the model is unusable.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks.slo.assessment import assess
from benchmarks.slo.report import describe, plot, summarise, write_json
from benchmarks.slo.runs import Scenario, Target, measure_accuracy
from benchmarks.slo.samples import SampleError, load_samples

ACCURACY = "accuracy"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.slo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", required=True, help="address of the server, such as http://127.0.0.1:3000")
    parser.add_argument("--model", required=True)
    parser.add_argument("--p99-ms", type=float, default=20.0, help="bound of the 99th percentile (default: 20)")
    parser.add_argument(
        "--scenario", nargs="+", choices=["all", ACCURACY, *Scenario], default=["server"], help="default: server"
    )
    parser.add_argument("--data", type=Path, help="safetensors file with inputs/NAME and targets, such as a run's test")
    parser.add_argument("--output", help="the tensor of scores (default: the first one of floating-point numbers)")
    parser.add_argument("--rate", type=float, help="measure the server scenario at this rate instead of searching")
    parser.add_argument("--seconds", type=float, default=10.0, help="least duration of a run (default: 10)")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--header", action="append", default=[], metavar="'NAME: VALUE'", help="such as Authorization")
    parser.add_argument("--json", type=Path, help="write the assessment and all runs to this file")
    parser.add_argument("--plot", type=Path, help="draw latency and rate to this PNG file")
    args = parser.parse_args()
    url = args.url.rstrip("/")
    headers = _headers(parser, args.header)
    try:
        samples = load_samples(url, args.model, data=args.data, output=args.output, headers=headers)
    except SampleError as error:
        print(error, file=sys.stderr)
        return 2
    names = {*Scenario, ACCURACY} if "all" in args.scenario else set(args.scenario)
    if ACCURACY in args.scenario and samples.targets is None:
        parser.error("--scenario accuracy needs --data with targets")
    target = Target(url=url, samples=samples, connections=args.connections)
    assessment = assess(
        target,
        args.model,
        scenarios=[scenario for scenario in Scenario if scenario in names],
        p99_ms=args.p99_ms,
        seconds=args.seconds,
        rate=args.rate,
        on_run=lambda run: print(describe(run), flush=True),
    )
    if ACCURACY in names and samples.targets is not None:
        assessment = replace(assessment, accuracy=measure_accuracy(target))
    print(summarise(assessment))
    if args.json:
        write_json(assessment, args.json)
    if args.plot:
        plot(assessment, args.plot)
    return 0 if assessment.holds else 1


def _headers(parser: argparse.ArgumentParser, lines: list[str]) -> dict[str, str]:
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            parser.error(f"--header: {line!r} is not NAME: VALUE")
        headers[name.strip()] = value.strip()
    return headers


if __name__ == "__main__":
    sys.exit(main())
