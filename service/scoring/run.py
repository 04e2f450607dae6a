"""Batch scoring as a Python function: files in, predictions out, each row exactly once.

Invariant: when `score` returns without failures, the output holds every row of the input, scored or rejected, as one
job's answer; until then it holds whole shards of that job only, and calling it again goes on where it ended.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from service.engine.sessions.device import DeviceSetting, resolve_device
from service.errors import EkibenError
from service.manifest import Manifest
from service.scoring.ahead import ahead
from service.scoring.engine import Engine, Outcome
from service.scoring.fields import map_columns
from service.scoring.files import InputFile, find_files
from service.scoring.job import Format, Job, ScoringError, SinkFormat
from service.scoring.ledger import Ledger
from service.scoring.local import run_local
from service.scoring.model import read_manifest, resolve
from service.scoring.plan import ReadError, Shard, describe, plan
from service.scoring.progress import Bar
from service.scoring.sources import SOURCES
from service.scoring.summary import confidence_picture, encode, summarize
from service.tasks import TASKS
from service.tasks.body import parse_request

SHARD_ROWS = {"image-classifier": 32768, "language-model": 64, "image-generator": 256}  # else SEQUENCE_SHARD_ROWS
SEQUENCE_SHARD_ROWS = 4096
PLANNED_AHEAD = 2  # few, so that a worker finds in the cache what was hashed just now
LEFT_BEHIND_S = 1.0  # planning that does not end when the job does
LINES: frozenset[Format] = frozenset({"jsonl", "openai", "text"})
REQUEST_FIELDS: Mapping[str, frozenset[str]] = {
    "image-classifier": frozenset({"top_k"}),
    "text-classifier": frozenset({"top_k", "truncate"}),
    "series-classifier": frozenset({"top_k"}),
    "series-tagger": frozenset({"top_k"}),
    "language-model": frozenset({"max_tokens", "temperature", "top_k", "top_p", "stop", "logprobs", "seed"}),
    "image-generator": frozenset({"seed"}),
}


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of a job. `summary` is None if it did not come to its end."""

    summary: Mapping[str, Any] | None
    failures: tuple[str, ...]
    computed: int  # rows, by this call
    seconds: float

    @property
    def reject_share(self) -> float:
        return self.summary["rejected"] / max(self.summary["rows"], 1) if self.summary else 0.0


def score(
    model: str,
    inputs: Sequence[str | Path],
    output: str | Path,
    *,
    bundles: str | Path = "bundles",
    engine: Literal["local", "ray"] = "local",
    workers: int | None = None,
    device: DeviceSetting = "auto",
    input_format: Format | None = None,
    output_format: SinkFormat = "parquet",
    columns: Mapping[str, str] | None = None,
    id_column: str | None = None,
    keep: Sequence[str] = (),
    header: bool = True,
    request: Mapping[str, Any] | None = None,
    shard_rows: int | None = None,
    limit: int | None = None,
    progress: bool = False,
) -> Result:
    """Score the rows of some files with NAME or NAME@VERSION into a folder.

    `columns` maps fields of the task to columns, `request` sets fields of its request for every row (top_k, ...).
    Raises ScoringError if the job cannot begin, or the folder holds another one.
    """
    began = time.monotonic()
    for option, number in (("workers", workers), ("shard-rows", shard_rows)):
        if number is not None and number < 1:
            raise ScoringError(f"--{option} {number}: expected at least 1")
    name, version = resolve(model, Path(bundles))
    manifest = read_manifest(Path(bundles), name, version)
    files = find_files([str(path) for path in inputs], output=Path(output), wanted=input_format)
    job = _job(
        manifest,
        files,
        bundles=Path(bundles).absolute(),
        inputs=tuple(str(path) for path in inputs),
        output=Path(output).absolute(),
        sink=output_format,
        asked=dict(columns or {}),
        id_column=id_column,
        keep=tuple(keep),
        header=header,
        request=dict(request or {}),
        shard_rows=shard_rows,
        limit=limit,
        device=resolve_device(device),
    )
    ledger = Ledger(job.output)
    try:
        ledger.begin(job, [file.name for file in files])
        stamps = {file.name: file.stamp for file in files}
        if ledger.finished(stamps):
            summary = json.loads((job.output / "summary.json").read_bytes())
            return Result(summary=summary, failures=(), computed=0, seconds=time.monotonic() - began)
        bar = Bar(f"{name} {version}", shown=progress)
        try:
            outcome, planned = _run(job, files, ledger, bar, engine=ENGINES[engine], workers=workers)
        finally:
            bar.close()
        summary = None
        seconds = time.monotonic() - began
        if not outcome.failures and not outcome.stopped:
            summary = summarize(job, manifest, len(files), ledger.records())
            planned.check(job, summary)
            timing = {"rows": bar.rows, "seconds": seconds, "rows_per_s": bar.rows / seconds}
            documents = {"summary.json": encode(summary), "timing.json": encode(timing)}
            ledger.finish({**documents, "confidence.png": confidence_picture(summary)}, stamps)
        return Result(summary=summary, failures=tuple(outcome.failures), computed=bar.rows, seconds=seconds)
    except OSError as error:
        raise ScoringError(f"--output {job.output}: {describe(error)}") from error
    finally:
        ledger.close()


@dataclass(kw_only=True)
class _Plan:
    """What was planned so far, and what could not be read for it."""

    unread: list[str] = field(default_factory=list)
    shards: int = 0
    rows: int = 0
    whole: bool = False  # planned to the end

    def check(self, job: Job, summary: Mapping[str, Any]) -> None:
        """Raises ScoringError unless the summary is of all that was planned."""
        blank = job.input_format in LINES  # blank lines are planned, but are no rows
        rows = summary["rows"] <= self.rows if blank else summary["rows"] == self.rows
        if not (self.whole and rows and summary["shards"] == self.shards):
            raise ScoringError(
                f"{job.output} holds {summary['shards']} shards of {summary['rows']} rows, planned were "
                f"{self.shards} of {self.rows}{'' if self.whole else ' and more'}: the job is not done"
            )


def _run(
    job: Job, files: Sequence[InputFile], ledger: Ledger, bar: Bar, *, engine: Engine, workers: int | None
) -> tuple[Outcome, _Plan]:
    ledger.resume()
    planned = _Plan()
    with ahead(_missing(job, files, ledger, bar, planned), PLANNED_AHEAD, wait_s=LEFT_BEHIND_S) as shards:
        outcome = engine(job, shards, workers=workers, report=bar)
    outcome.failures[:0] = planned.unread
    return outcome, planned


def _missing(job: Job, files: Sequence[InputFile], ledger: Ledger, bar: Bar, planned: _Plan) -> Iterator[Shard | None]:
    """The shards that are not committed yet, None for those that are. A file that cannot be read is noted."""
    for item in plan(job, files):
        if isinstance(item, ReadError):
            planned.unread.append(str(item))
        elif not isinstance(item, Shard):
            ledger.check_planned(item)
        else:
            planned.shards, planned.rows = planned.shards + 1, planned.rows + item.span.rows
            if ledger.committed(item) is None:
                bar.planned(item.span.rows)
                yield item
            else:
                yield None
    planned.whole = True


def _job(
    manifest: Manifest,
    files: Sequence[InputFile],
    *,
    asked: dict[str, str],
    id_column: str | None,
    keep: tuple[str, ...],
    request: dict[str, Any],
    shard_rows: int | None,
    **options: Any,
) -> Job:
    family = manifest.parameters.family
    _check_request(manifest, request)
    first, columns = _first_with_columns(files, header=options["header"])
    if first.format == "openai" and id_column is None:
        id_column = "custom_id"
    if first.format == "openai" and options["sink"] == "jsonl" and keep:
        raise ScoringError("--keep: OpenAI's output has no place for columns; choose --output-format parquet or csv")
    partitions = [name for name, _ in first.partitions]
    for name in [*([id_column] if id_column else []), *keep]:
        if name not in {*columns, *partitions, "*"} and first.format != "jsonl":
            raise ScoringError(f"no column {name!r} in {first.name}; there are {', '.join(map(repr, columns))}")
    others = [*([id_column] if id_column else []), *keep]
    try:
        return Job(
            model=manifest.name,
            version=manifest.version,
            input_format=first.format,
            columns=map_columns(family, asked, columns, others=others, sparse=first.format == "jsonl"),
            id_column=id_column,
            keep=keep,
            request=request,
            shard_rows=shard_rows or SHARD_ROWS.get(family, SEQUENCE_SHARD_ROWS),
            **options,
        )
    except ValidationError as error:
        fault = error.errors()[0]
        raise ScoringError(f"option {fault['loc'][0]}: {fault['msg']}, got {fault['input']!r}") from error


def _first_with_columns(files: Sequence[InputFile], *, header: bool) -> tuple[InputFile, tuple[str, ...]]:
    """The first file that is not empty; the very first if all are."""
    for file in files:
        try:
            columns = SOURCES[file.format].columns(file, header=header)
        except (OSError, EOFError, ValueError) as error:
            raise ScoringError(f"{file.name}: {describe(error)}") from error
        if columns:
            return file, columns
    return files[0], ()


def _check_request(manifest: Manifest, request: Mapping[str, Any]) -> None:
    """Raises ScoringError for an option that the task's request does not take, or not so."""
    family = manifest.parameters.family
    unknown = sorted(set(request) - REQUEST_FIELDS[family])
    if unknown:
        known = ", ".join(sorted(REQUEST_FIELDS[family]))
        raise ScoringError(f"--set {unknown[0]}: the options of a {family} are {known}")
    items: dict[str, Any] = {"images": []} if manifest.task == "classify" else {}
    try:
        parse_request(TASKS[manifest.task].request, {"model": manifest.name, **items, **request})
    except EkibenError as error:
        raise ScoringError(f"--set {error.detail.removeprefix('/')}") from error


def _run_ray(job: Job, shards: Iterator[Shard], *, workers: int | None, report: Bar) -> Outcome:
    try:
        from service.scoring.ray import run_ray  # noqa: PLC0415 - ray is an extra
    except ModuleNotFoundError as error:
        raise ScoringError(f"--engine ray needs the dependency group `ray`: {error}") from error
    return run_ray(job, shards, workers=workers, report=report)


ENGINES: dict[str, Any] = {"local": run_local, "ray": _run_ray}
