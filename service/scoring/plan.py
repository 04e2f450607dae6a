"""The shards of a job: what is computed and committed as one.

Invariant: the plan follows from the input and the options alone. A shard's key covers the bytes of its rows, what
gives them meaning, their place, the bundle's version and every option: a record under that key is of this very work.
"""

import csv
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa

from service.scoring.fields import check_columns
from service.scoring.files import InputFile
from service.scoring.job import Job, ScoringError, digest
from service.scoring.rows import Span, Want
from service.scoring.sources import SOURCES


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Numbered inside its file, so that a file which cannot be read to its end moves no other's shards."""

    file_number: int
    number: int
    key: str
    file: InputFile
    span: Span

    @property
    def name(self) -> str:
        return f"{self.file_number:05d}-{self.number:06d}"

    @property
    def place(self) -> tuple[int, int]:
        """Where reading it begins: of the parts of one row group this is equal."""
        return self.file_number, self.span.start

    @property
    def title(self) -> str:
        """How messages call it."""
        last = self.span.first_row + self.span.rows - 1
        return f"shard {self.name} ({self.file.name}, rows {self.span.first_row} to {last})"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Shard":
        file = {**content["file"], "partitions": tuple(tuple(pair) for pair in content["file"]["partitions"])}
        span = {**content["span"], "names": tuple(content["span"]["names"])}
        return cls(**{**content, "file": InputFile(**file), "span": Span(**span)})


class ReadError(ScoringError):
    """A file that cannot be read to its end; what was planned before the fault stands."""


READ_ERRORS = (OSError, EOFError, ValueError, pa.ArrowException, tarfile.TarError, csv.Error, ReadError)


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A file was cut to its end into so many shards."""

    file_number: int
    file: InputFile
    shards: int


def wanted_columns(job: Job, columns: Sequence[str]) -> tuple[str, ...]:
    """The columns of a file that the job reads, in the file's order."""
    fed = set(job.columns.values())
    everything = job.keep == ("*",)
    wanted = fed | ({job.id_column} if job.id_column else set())
    return tuple(name for name in columns if name in wanted or name in job.keep or everything)


def file_want(job: Job, file: InputFile) -> Want:
    """Raises ScoringError if the file lacks what the job reads, ReadError if it cannot be read at all."""
    try:
        columns = SOURCES[file.format].columns(file, header=job.header)
    except READ_ERRORS as error:
        raise ReadError(f"{file.name}: {describe(error)}") from error
    needed = [*job.columns.values(), *([job.id_column] if job.id_column else [])]
    partitions = [name for name, _ in file.partitions]
    if file.format == "jsonl":  # any object may lack any key
        columns = tuple(dict.fromkeys([*columns, *needed, *(name for name in job.keep if name != "*")]))
    if columns:
        kept = [name for name in job.keep if name not in {"*", *partitions}]
        check_columns(file, columns, [*needed, *kept])
    return Want(columns=wanted_columns(job, columns), header=job.header)


def plan(job: Job, files: Sequence[InputFile]) -> Iterator[Shard | Planned | ReadError]:
    """Every shard; behind those of a file, that it is planned, or why the rest of it cannot be."""
    left = job.limit
    for file_number, file in enumerate(files):
        count = rows = 0
        try:
            for shard in _plan_file(job, file, file_number, left, last=file_number == len(files) - 1):
                count, rows = count + 1, rows + shard.span.rows
                yield shard
        except ReadError as error:
            yield error
            if left is not None:
                return
        else:
            yield Planned(file_number=file_number, file=file, shards=count)
        left = None if left is None else left - rows


def _plan_file(job: Job, file: InputFile, file_number: int, limit: int | None, *, last: bool) -> Iterator[Shard]:
    if limit == 0:
        return
    want = file_want(job, file)
    left = limit
    identity = json.dumps([job.identity(), want.columns], sort_keys=True)
    try:
        for number, found in enumerate(SOURCES[file.format].spans(file, want, shard_rows=job.shard_rows, last=last)):
            span = found if left is None or found.rows <= left else replace(found, rows=left)
            place = (span.first_row, span.rows, span.skip, span.first_line)
            key = digest(identity, file.name, *map(str, place), span.digest)
            yield Shard(file_number=file_number, number=number, key=key, file=file, span=span)
            left = None if left is None else left - span.rows
            if left == 0:
                return
    except READ_ERRORS as error:
        raise ReadError(f"{file.name}: {describe(error)}") from error


def describe(error: Exception) -> str:
    """An error of the machine or a library, in a line."""
    if isinstance(error, ScoringError):
        return str(error)
    text = str(error).strip().partition("\n")[0]
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror + (f": {error.filename}" if error.filename else "")
    return f"{type(error).__name__}: {text}"
