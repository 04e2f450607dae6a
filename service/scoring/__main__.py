"""python -m service.scoring --model NAME[@VERSION] --input PATH... --output DIR

Exit code 0: every row is scored, or no more are rejected than allowed. 3: more are. 1: the job failed; start it again
with the same command to go on. 2: the command is wrong.
"""

import argparse
import json
import logging
import os
import sys
from typing import Any

from service.errors import BundleError, DeviceError
from service.scoring.job import Format, ScoringError, SinkFormat
from service.scoring.run import Result, score

REJECTED, FAILED, INTERRUPTED = 3, 1, 130


def main(arguments: list[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        result = score(
            args.model,
            args.input,
            args.output,
            bundles=args.bundles,
            engine=args.engine,
            workers=args.workers,
            device=args.device,
            input_format=args.input_format,
            output_format=args.output_format,
            columns=dict(args.column),
            id_column=args.id,
            keep=args.keep,
            header=not args.no_header,
            request=dict(args.set),
            shard_rows=args.shard_rows,
            limit=args.limit,
            progress=sys.stderr.isatty() and not args.json,
        )
    except (ScoringError, BundleError, DeviceError) as error:
        return _failed([str(error)], as_json=args.json)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return INTERRUPTED
    if result.summary is None:
        return _failed(list(result.failures), as_json=args.json, computed=result.computed)
    print(json.dumps(_document(result)) if args.json else _sentence(result, args.output))
    return REJECTED if result.reject_share > args.max_rejects else 0


def _failed(failures: list[str], *, as_json: bool, computed: int = 0) -> int:
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    if as_json:
        print(json.dumps({"failures": failures, "computed": computed}))
    return FAILED


def _document(result: Result) -> dict[str, Any]:
    assert result.summary is not None
    return {**result.summary, "computed": result.computed, "seconds": round(result.seconds, 3)}


def _sentence(result: Result, output: str) -> str:
    assert result.summary is not None
    summary, rate = result.summary, result.computed / max(result.seconds, 1e-9)
    done = f"{result.computed:,} rows in {result.seconds:.1f} s ({rate:,.0f}/s)" if result.computed else "nothing to do"
    return (
        f"{output}: {done}; {summary['scored']:,} scored, {summary['rejected']:,} rejected "
        f"by {summary['model']} {summary['version']}"
    )


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    return name, value


def _setting(text: str) -> tuple[str, Any]:
    name, value = _pair(text)
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"expected a share from 0 to 1, got {text!r}")
    return share


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m service.scoring", description="Score files, each row exactly once."
    )
    add = parser.add_argument
    add("--model", required=True, metavar="NAME[@VERSION]")
    add(
        "--input",
        required=True,
        nargs="+",
        metavar="PATH",
        help="files, folders, globs or URIs (s3://, gs://, hdfs://)",
    )
    add("--output", required=True, metavar="DIR", help="a folder for this job alone; the same command resumes it")
    add("--bundles", default=os.environ.get("EKIBEN_BUNDLES", "bundles"), metavar="DIR")
    add("--engine", choices=("local", "ray"), default="local")
    add("--workers", type=int, metavar="N", help="processes; one for each core or GPU if not given")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--input-format", choices=Format.__args__, help="if the names of the files do not tell")  # type: ignore[attr-defined]
    add("--output-format", choices=SinkFormat.__args__, default="parquet")  # type: ignore[attr-defined]
    add(
        "--column", action="append", type=_pair, default=[], metavar="FIELD=COLUMN", help="which column feeds the model"
    )
    add("--id", metavar="COLUMN", help="goes with every prediction and reject")
    add("--keep", action="append", default=[], metavar="COLUMN", help="goes with every prediction; * for all")
    add("--no-header", action="store_true", help="CSV: the first line is data; columns are called 0, 1, ...")
    add(
        "--set",
        action="append",
        type=_setting,
        default=[],
        metavar="NAME=VALUE",
        help="a field of every request: top_k=3",
    )
    add("--shard-rows", type=int, metavar="N", help="rows that are committed together")
    add("--limit", type=int, metavar="N", help="only the first N rows")
    add("--max-rejects", type=_share, default=0.0, metavar="SHARE", help="exit code 3 above this share of rows (0)")
    add("--json", action="store_true", help="print the result as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
