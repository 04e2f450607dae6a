"""`ekiben bench`, in a checkout also `python -m benchmarks.slo`: what load a model can take."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ekiben.bench.assessment import assess
from ekiben.bench.report import describe, plot, summarise, write_json
from ekiben.bench.runs import Scenario, Target, measure_accuracy
from ekiben.bench.samples import SampleError, load_samples

ACCURACY = "accuracy"
DESCRIPTION = """Find the highest rate at which a service keeps a latency bound, with MLPerf's LoadGen.

Measures any server of the Open Inference Protocol over HTTP. `server` sends at random times (a Poisson process), as
independent users do, and searches for the highest rate whose 99th percentile keeps the bound; a latency counts from the
moment at which a request was due, so that a server that stalls cannot hide it. `single-stream` and `multi-stream` send
one and eight items when the last are answered, `offline` all at once; `accuracy` compares the label of every item of
--data. Exit status 0: the bound is kept and every query was answered; 1: not; 2: the command or the model is unusable.
"""


ParserClass = type[argparse.ArgumentParser]


def command_parser(parser_class: ParserClass = argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser = parser_class(
        prog="python -m benchmarks.slo", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", required=True, help="address of the server, such as http://127.0.0.1:3000")
    parser.add_argument("--model", required=True, help="a model of the server")
    parser.add_argument("--p99-ms", type=float, default=20.0, help="bound of the 99th percentile (default: 20)")
    parser.add_argument(
        "--scenario", nargs="+", choices=["all", ACCURACY, *Scenario], default=["server"], help="default: server"
    )
    parser.add_argument("--data", type=Path, help="safetensors file with inputs/NAME and targets, such as a run's test")
    parser.add_argument("--output", help="the tensor of scores (default: the first one of floating-point numbers)")
    parser.add_argument("--rate", type=float, help="measure the server scenario at this rate instead of searching")
    parser.add_argument("--seconds", type=float, default=10.0, help="least duration of a run (default: 10)")
    parser.add_argument("--connections", type=int, default=64, help="open at the same time (default: 64)")
    parser.add_argument("--header", action="append", default=[], metavar="'NAME: VALUE'", help="such as Authorization")
    parser.add_argument("--json", type=Path, help="write the assessment and all runs to this file")
    parser.add_argument("--plot", type=Path, help="draw latency and rate to this PNG file")
    return parser


def main(argv: Sequence[str] | None = None, parser_class: ParserClass = argparse.ArgumentParser) -> int:
    """Exit status: 0 the bound is kept and every query was answered, 1 not, 2 the command or the model is unusable."""
    parser = command_parser(parser_class)
    args = parser.parse_args(argv)
    url = args.url.rstrip("/")
    if not url.startswith(("http://", "https://")):
        parser.error(f"--url: {args.url!r} does not begin with http:// or https://")
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
