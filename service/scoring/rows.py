"""The unit of reading: rows of one input file, and where they are.

Invariant: a row is identified by its file and its number there, which depends on the file alone; every row of the input
is either scored or rejected, once.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeAlias

import numpy.typing as npt
import pyarrow as pa

from service.scoring.files import InputFile

CHUNK_ROWS = 8192  # rows that are in memory together; also how far texts are sorted by length
CHUNK_BYTES = 16 << 20
SHARD_BYTES = 64 << 20  # a shard is cut here even if it has few rows
MAX_ROW_BYTES = 16 << 20  # one record of a text format, one picture

TAPER = 8  # what is left of a job is cut into so many shards at least,
LEAST_ROWS = 1024  # none smaller than this

Column: TypeAlias = pa.Array | npt.NDArray[Any] | Sequence[Any]


@dataclass(frozen=True, kw_only=True)
class Span:
    """A run of rows of one file: what one shard covers. `start` and `stop` count as the source does (bytes, groups)."""

    first_row: int
    rows: int
    start: int
    stop: int
    digest: str  # xxh3 (128 bits) of the very bytes that hold these rows, and of the layout that gives them meaning
    skip: int = 0  # rows to pass over after `start`
    first_line: int = 1
    names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Some rows of a span, in order. `faults`: index -> why the row could not be read; its values are then None."""

    numbers: Sequence[int]
    columns: Mapping[str, Column]
    faults: Mapping[int, str] = field(default_factory=dict)
    lines: Sequence[int] | None = None

    def before(self, end: int) -> "Rows":
        """Those whose number is below `end`."""
        count = bisect_left(self.numbers, end)
        if count == len(self.numbers):
            return self
        return replace(
            self,
            numbers=self.numbers[:count],
            columns={name: column[:count] for name, column in self.columns.items()},
            faults={i: fault for i, fault in self.faults.items() if i < count},
            lines=None if self.lines is None else self.lines[:count],
        )


def tapered(shard_rows: int, left: int) -> int:
    """Rows of the next shard when `left` are the last of a job, so that its workers end at about the same time."""
    return max(min(shard_rows, left // TAPER), min(shard_rows, max(shard_rows // TAPER, LEAST_ROWS)))


class Reader(Protocol):
    """An open file; stays where it was, so that spans in order are read without going back."""

    def read(self, span: Span) -> Iterator[Rows]: ...

    def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Want:
    """What is read of a file: these columns, and for CSV whether its first line holds their names."""

    columns: tuple[str, ...]
    header: bool = True


class Source(Protocol):
    """One input format."""

    def columns(self, file: InputFile, *, header: bool) -> tuple[str, ...]:
        """The names of the columns, from as little of the file as will do."""
        ...

    def spans(self, file: InputFile, want: Want, *, shard_rows: int, last: bool) -> Iterator[Span]:
        """Cut the file into shards, hashing what each of them will read and the layout it is read by.

        Of the `last` file of a job, if it says beforehand how many rows it has, shards get smaller to its end.
        """
        ...

    def open(self, file: InputFile, want: Want) -> Reader: ...
