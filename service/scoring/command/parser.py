"""The options of `python -m service.scoring`.

Invariant: the destinations of the options are the parameters of `score`, except for models, json and max_rejects.
"""

import argparse
import json
import os
from collections.abc import Callable
from functools import partial
from typing import Any, get_args

from service.scoring.job import Format, SinkFormat
from service.scoring.run import GRACE_S

ParserClass = type[argparse.ArgumentParser]


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


def _character(text: str) -> str:
    return {"\\t": "\t", "tab": "\t", "\\x01": "\x01"}.get(text, text)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"expected a share from 0 to 1, got {text!r}")
    return share


def command_parser(parser_class: ParserClass = argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser = parser_class(prog="python -m service.scoring", description="Score files, each row once.")
    add = parser.add_argument
    add(
        "--model",
        dest="models",
        required=True,
        action="append",
        metavar="NAME[@VERSION]",
        help="again for several models in one pass over the input, each with its output in DIR/NAME",
    )
    input_help = "files, folders, globs or URIs (s3://, gs://, az://, hdfs://, https://)"
    add("--input", dest="inputs", required=True, nargs="+", metavar="PATH", help=input_help)
    query_help = "the query whose result is scored; --input is sqlite:///PATH or postgresql://HOST/DATABASE"
    add("--query", metavar="SQL", help=query_help)
    output_help = "a folder or URI for this job alone; the same command resumes the job"
    add("--output", required=True, metavar="DIR", help=output_help)
    bundles_help = "folder of the bundles (default: EKIBEN_BUNDLES, else bundles)"
    add("--bundles", default=os.environ.get("EKIBEN_BUNDLES", "bundles"), metavar="DIR", help=bundles_help)
    _add_engine_options(add)
    add("--input-format", choices=get_args(Format), help="by default, the suffix of the files decides")
    output_help = "by default parquet; jsonl for an OpenAI batch, in OpenAI's format"
    add("--output-format", choices=get_args(SinkFormat), help=output_help)
    repeated = partial(add, action="append", default=[])
    column_help = "the column that feeds a field of the model"
    repeated("--column", dest="columns", type=_pair, metavar="FIELD=COLUMN", help=column_help)
    id_help = "a column that identifies a row; copied to every prediction and reject"
    add("--id", dest="id_column", metavar="COLUMN", help=id_help)
    repeated("--keep", metavar="COLUMN", help="a column to copy to every prediction; * for all")
    partition_help = "predictions in folders COLUMN=value, of an input column or the predicted label; may be repeated"
    repeated("--partition-by", metavar="COLUMN", help=partition_help)
    _add_csv_options(add)
    set_help = "a field of every request, such as top_k=3"
    repeated("--set", dest="request", type=_request_field, metavar="NAME=VALUE", help=set_help)
    add("--shard-rows", type=int, metavar="N", help="rows per shard, the unit that is scored and committed")
    add("--limit", type=int, metavar="N", help="score only the first N rows")
    add("--where", metavar="CONDITION", help="score the rows that fulfil it: \"age > 30 and city == 'Rome'\"")
    add("--sample", type=float, metavar="SHARE", help="score this share of the rows, chosen by a hash of file and row")
    add("--sample-seed", type=int, default=0, metavar="N", help="another seed is another sample")
    append_help = "append the predictions: the path or URI of a Delta table, or CATALOG.NAMESPACE.TABLE of Iceberg"
    add("--append-to", metavar="TABLE", help=append_help)
    new_help = "the input grows: score the files that are new; name those that were changed or deleted"
    add("--new-only", action="store_true", help=new_help)
    changed_help = "exit code 0, not 4, if files have changed since --new-only scored them"
    add("--ignore-changed", action="store_true", help=changed_help)
    verify_help = "compare the files of a finished job by their hashes, not only by their sizes"
    add("--verify", action="store_true", help=verify_help)
    rejects_help = "exit code 3 if more than this share of rows is rejected (0)"
    add("--max-rejects", type=_share, default=0.0, metavar="SHARE", help=rejects_help)
    grace_help = "after SIGTERM, time for the shards in progress"
    add("--grace-s", type=float, default=GRACE_S, metavar="SECONDS", help=grace_help)
    metrics_help = "write the progress as Prometheus metrics to this file, whose name ends in .prom for node_exporter"
    add("--metrics-file", metavar="PATH", help=metrics_help)
    add("--pushgateway", metavar="URL", help="push the progress to a Prometheus Pushgateway")
    add("--json", action="store_true", help="print the result as JSON")
    return parser


def _add_engine_options(add: Callable[..., Any]) -> None:
    add("--engine", choices=("local", "ray"), default="local", help="processes of this machine, or a Ray cluster")
    address_help = "--engine ray: the cluster; by default RAY_ADDRESS, else one of this machine; local starts one"
    add("--ray-address", metavar="ADDRESS", help=address_help)
    env_help = "--engine ray: the runtime environment of its tasks (working_dir, env_vars, pip, ...), as JSON or a file"
    add("--ray-runtime-env", metavar="JSON|FILE", help=env_help)
    add("--workers", type=int, metavar="N", help="processes; by default one per core or GPU")
    device_help = "auto: the GPU if a session runs there (default: EKIBEN_DEVICE, else auto)"
    add("--device", choices=("auto", "cpu", "cuda"), help=device_help)


def _add_csv_options(add: Callable[..., Any]) -> None:
    header_help = "CSV: the first line is data; the columns are named 0, 1, ..."
    add("--no-header", dest="header", action="store_false", help=header_help)
    delimiter_help = "CSV: between fields; by default a comma, or a tab in .tsv, and what a line `sep=` says"
    add("--delimiter", type=_character, metavar="CHAR", help=delimiter_help)
    add("--quote", type=_character, metavar="CHAR", help="CSV: around fields; '' for none; by default \"")
    escape_help = "CSV: before a quote inside of quotes; '' for none; by default, quotes are doubled"
    add("--escape", type=_character, metavar="CHAR", help=escape_help)
    encoding_help = "CSV, text, JSON Lines: by default UTF-8, or what a byte order mark says"
    add("--encoding", metavar="NAME", help=encoding_help)
    formulas_help = "CSV output: an apostrophe before texts that a spreadsheet would run as a formula"
    add("--escape-formulas", action="store_true", help=formulas_help)
