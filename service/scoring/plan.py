"""Cuts the input of jobs that read the same columns into shards: the units that are scored and committed.

Invariant: the plan of a job follows from the input and its options alone, not from the other jobs. A shard's key covers
the bytes of its rows, their layout and position, the bundle's version and every option, so a record under that key
describes exactly this shard.
"""

import csv
import json
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeAlias

import pyarrow as pa

from service.scoring.input.fields import check_columns
from service.scoring.input.files import InputFile
from service.scoring.input.nested import with_paths
from service.scoring.input.rows import ReadSpec, Span
from service.scoring.job import Job, ScoringError, digest
from service.scoring.selection.condition import condition_columns
from service.scoring.sources import SOURCES


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Consecutive rows of one file, numbered within it, so that an unreadable file renumbers no other shards."""

    file_number: int
    number: int
    key: str
    file: InputFile
    span: Span

    @property
    def name(self) -> str:
        return f"{self.file_number:05d}-{self.number:06d}"

    @property
    def read_position(self) -> tuple[int, int]:
        """The file and the position where reading starts; equal for the parts of one row group."""
        return self.file_number, self.span.start

    @property
    def title(self) -> str:
        """The shard as messages name it."""
        last = self.span.first_row + self.span.rows - 1
        return f"shard {self.name} ({self.file.name}, rows {self.span.first_row} to {last})"

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Shard":
        """The shard whose `asdict` was encoded as JSON."""
        return cls(**{**content, "file": InputFile(**content["file"]), "span": Span(**content["span"])})


@dataclass(frozen=True, kw_only=True)
class SharedShard:
    """The same rows as shards of one or several jobs, by the numbers of the jobs."""

    shards: Mapping[int, Shard]

    @property
    def first(self) -> Shard:
        return next(iter(self.shards.values()))

    def to_json(self) -> dict[str, Any]:
        return {str(number): asdict(shard) for number, shard in self.shards.items()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "SharedShard":
        return cls(shards={int(number): Shard.from_json(shard) for number, shard in content.items()})


class ReadError(ScoringError):
    """A file that cannot be read to its end. The shards planned before the error stay valid."""


class ChangedError(ReadError):
    """A file that was changed after it was planned, which makes the plan itself invalid."""


READ_ERRORS = (OSError, EOFError, ValueError, pa.ArrowException, tarfile.TarError, csv.Error, ReadError)


@dataclass(frozen=True, kw_only=True)
class PlannedFile:
    """A file that was read to its end and cut into `shards` shards of each of the `jobs`."""

    jobs: tuple[int, ...]
    file_number: int
    file: InputFile
    shards: int
    passed_over: Mapping[str, int] = field(default_factory=dict)


def _named(job: Job) -> tuple[str, ...]:
    return (*job.named_columns, *condition_columns(job.where))


def columns_to_read(job: Job, columns: Sequence[str]) -> tuple[str, ...]:
    """The columns of a file that the job reads, in the file's order."""
    return tuple(name for name in columns if name in _named(job) or job.keep == ("*",))


def read_spec(job: Job, file: InputFile) -> ReadSpec:
    """Return the columns to read. Raises ScoringError if one is missing, ReadError if the file cannot be read."""
    try:
        schema = SOURCES[file.format].schema(file, job.text_options)
    except READ_ERRORS as error:
        raise ReadError(f"{file.name}: {format_error(error)}") from error
    columns, copied = tuple(with_paths(schema, _named(job)).names), job.copied.names
    needed = [
        *job.columns.values(),
        *(name for name in (*copied, *condition_columns(job.where)) if name not in file.partitions),
    ]
    # Any object of a JSON Lines file may lack any key, so the first objects do not decide.
    if file.format == "jsonl":
        columns = tuple(dict.fromkeys([*columns, *needed]))
    if columns:
        check_columns(file, columns, needed)
    return ReadSpec(
        columns=columns_to_read(job, columns),
        text_options=job.text_options,
        copied=frozenset(copied),
        closed=job.keep == ("*",) and file.format == "jsonl",
    )


Planned: TypeAlias = SharedShard | PlannedFile | ReadError


def reading_of(job: Job) -> tuple[Any, ...]:
    """What decides the columns that a job reads and copies; equal for jobs of a pass that can share what they read."""
    return tuple(job.columns.values()), job.id_column, job.keep, job.copied_schema


def plan(
    jobs: Mapping[int, Job], files: Sequence[InputFile], numbers: Mapping[str, int] | None = None
) -> Iterator[Planned]:
    """Yield the shards of each file, then a PlannedFile, or a ReadError if the rest of the file cannot be read.

    `reading_of` is the same for all jobs, which `jobs` has by their numbers. Files are numbered in order unless
    `numbers` has those of their names.
    """
    limit = next(iter(jobs.values())).limit
    left = sys.maxsize if limit is None else limit
    for place, file in enumerate(files):
        file_number = place if numbers is None else numbers[file.name]
        count, passed_over = 0, Counter[str]()
        try:
            for shard in _plan_file(jobs, file, file_number, left, passed_over):
                count, left = count + 1, left - shard.first.span.rows
                yield shard
        except ReadError as error:
            yield error
            # The rows that the file would have taken from the limit are unknown.
            if limit is not None:
                return
        else:
            yield PlannedFile(
                jobs=tuple(jobs), file_number=file_number, file=file, shards=count, passed_over=passed_over
            )


def _plan_file(
    jobs: Mapping[int, Job], file: InputFile, file_number: int, left: int, passed_over: Counter[str]
) -> Iterator[SharedShard]:
    if not left:
        return
    job = next(iter(jobs.values()))
    # Its columns took no part in the schema of the job, so it is left to the next run, even if it can be read by now.
    if file.name in job.unreadable:
        raise ReadError(job.unreadable[file.name])
    spec = read_spec(job, file)
    identities = {
        number: json.dumps([one.identity(), spec.columns, one.copied_schema], sort_keys=True)
        for number, one in jobs.items()
    }
    try:
        with closing(SOURCES[file.format](file, spec)) as source:
            for number, whole in enumerate(source.spans(shard_rows=job.shard_rows)):
                span = replace(whole, rows=min(whole.rows, left))
                position = (span.first_row, span.rows, span.skip, span.first_line)
                keys = {
                    of: digest(identity, file.name, *map(str, position), span.digest)
                    for of, identity in identities.items()
                }
                yield SharedShard(
                    shards={
                        of: Shard(file_number=file_number, number=number, key=key, file=file, span=span)
                        for of, key in keys.items()
                    }
                )
                left -= span.rows
                if not left:
                    return
            passed_over.update(getattr(source, "passed_over", {}))
    except READ_ERRORS as error:
        raise ReadError(f"{file.name}: {format_error(error)}") from error


def format_error(error: Exception) -> str:
    """One line for an error of the operating system or a library."""
    if isinstance(error, ScoringError):
        return str(error)
    text = str(error).strip().partition("\n")[0]
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror + (f": {error.filename}" if error.filename else "")
    return f"{type(error).__name__}: {text}"
