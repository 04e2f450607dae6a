"""python -m service.scoring --model NAME[@VERSION] --input PATH... --output DIR

Exit codes: 0, every row is scored, or no more rows are rejected than allowed; 3, more rows are rejected; 1, the job
failed, and the same command resumes it; 2, the command is wrong; 130, the job was interrupted.
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

EXIT_REJECTED, EXIT_FAILED, EXIT_INTERRUPTED = 3, 1, 130


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
        return _report_failures([str(error)], as_json=args.json)
    except KeyboardInterrupt:
        print("interrupted; the same command resumes the job", file=sys.stderr)
        return EXIT_INTERRUPTED
    if result.summary is None:
        return _report_failures(list(result.failures), as_json=args.json, computed=result.computed)
    print(json.dumps(_result_json(result)) if args.json else _result_line(result, args.output))
    return EXIT_REJECTED if result.reject_share > args.max_rejects else 0


def _report_failures(failures: list[str], *, as_json: bool, computed: int = 0) -> int:
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    if as_json:
        print(json.dumps({"failures": failures, "computed": computed}))
    return EXIT_FAILED


def _result_json(result: Result) -> dict[str, Any]:
    assert result.summary is not None
    return {**result.summary, "computed": result.computed, "seconds": round(result.seconds, 3)}


def _result_line(result: Result, output: str) -> str:
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


def _request_field(text: str) -> tuple[str, Any]:
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
    add("--output", required=True, metavar="DIR", help="a folder for this job alone; the same command resumes the job")
    add("--bundles", default=os.environ.get("EKIBEN_BUNDLES", "bundles"), metavar="DIR")
    add("--engine", choices=("local", "ray"), default="local")
    add("--workers", type=int, metavar="N", help="processes; by default one per core or GPU")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--input-format", choices=Format.__args__, help="by default, the suffix of the files decides")  # type: ignore[attr-defined]
    add("--output-format", choices=SinkFormat.__args__, default="parquet")  # type: ignore[attr-defined]
    add(
        "--column",
        action="append",
        type=_pair,
        default=[],
        metavar="FIELD=COLUMN",
        help="the column that feeds a field of the model",
    )
    add("--id", metavar="COLUMN", help="a column that identifies a row; copied to every prediction and reject")
    add("--keep", action="append", default=[], metavar="COLUMN", help="a column to copy to every prediction; * for all")
    add("--no-header", action="store_true", help="CSV: the first line is data; the columns are named 0, 1, ...")
    add(
        "--set",
        action="append",
        type=_request_field,
        default=[],
        metavar="NAME=VALUE",
        help="a field of every request, such as top_k=3",
    )
    add("--shard-rows", type=int, metavar="N", help="rows per shard, the unit that is scored and committed")
    add("--limit", type=int, metavar="N", help="score only the first N rows")
    add(
        "--max-rejects",
        type=_share,
        default=0.0,
        metavar="SHARE",
        help="exit code 3 if more than this share of rows is rejected (0)",
    )
    add("--json", action="store_true", help="print the result as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
