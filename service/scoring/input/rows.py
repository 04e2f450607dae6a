"""Rows of one input file, the spans that cut the file into shards, and the interface of an input format.

Invariant: a row's file and number identify it and depend on the file alone; every row is scored or rejected, once.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy.typing as npt
import pyarrow as pa

from service.scoring.input.files import InputFile
from service.scoring.job import TextOptions

# Rows that are in memory together; texts are sorted by length within them.
CHUNK_ROWS = 8192
CHUNK_BYTES = 16 << 20
# A shard ends when it reaches this size, even if it has few rows.
SHARD_BYTES = 64 << 20
# The limit of one record of a text format, or of one image.
MAX_ROW_BYTES = 16 << 20

Column: TypeAlias = pa.Array | npt.NDArray[Any] | Sequence[Any]


@dataclass(frozen=True, kw_only=True)
class Span:
    """Consecutive rows of one file: the rows of one shard.

    `start` and `stop` are in the unit of the format (bytes, row groups, rows). A reader skips `skip` rows after
    `start`. `digest` is the XXH3 hash (128 bits) of the bytes that hold the rows and of their layout (names, types).
    `names` lists the files of the span if the input is a folder of images.
    """

    first_row: int
    rows: int
    start: int
    stop: int
    digest: str
    skip: int = 0
    first_line: int = 1
    names: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Some rows of a span, in order. `faults` maps an index to why that row could not be read; its values are None.

    `json_texts` holds values of JSON rows that are to be copied, as JSON texts whose numbers are as they were written.
    `copied` holds the columns of the job's kept schema, in the form of its output. `left_out` counts further rows,
    which are not to be scored.
    """

    numbers: Sequence[int]
    columns: Mapping[str, Column]
    faults: Mapping[int, str] = field(default_factory=dict)
    lines: Sequence[int] | None = None
    json_texts: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    copied: Mapping[str, pa.Array] = field(default_factory=dict)
    left_out: int = 0

    def numbered_below(self, end: int) -> "Rows":
        """The rows numbered below `end`."""
        count = bisect_left(self.numbers, end)
        if count == len(self.numbers):
            return self
        return replace(
            self,
            numbers=self.numbers[:count],
            columns={name: column[:count] for name, column in self.columns.items()},
            faults={i: fault for i, fault in self.faults.items() if i < count},
            lines=None if self.lines is None else self.lines[:count],
            json_texts={name: texts[:count] for name, texts in self.json_texts.items()},
        )


class Sized(Protocol):
    @property
    def size(self) -> int:
        """The bytes that it takes in memory."""
        ...


Item = TypeVar("Item", bound=Sized)


def chunked(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Yield the items in order, in lists that reach CHUNK_ROWS items or CHUNK_BYTES, but for the last."""
    buffered, size = list[Item](), 0
    for item in items:
        buffered.append(item)
        size += item.size
        if len(buffered) == CHUNK_ROWS or size >= CHUNK_BYTES:
            yield buffered
            buffered, size = [], 0
    if buffered:
        yield buffered


@dataclass(frozen=True, kw_only=True)
class ReadSpec:
    """The part of a file to read: these columns, and how files of text are understood.

    `copied` names the columns that are copied to the output. With `closed`, a JSON row may have no other key than these
    columns, because all of its keys are to be copied.
    """

    columns: tuple[str, ...]
    text_options: TextOptions = field(default_factory=TextOptions)
    copied: frozenset[str] = frozenset()
    closed: bool = False


class Source(Protocol):
    """An open file of one format. It keeps its position, so that consecutive spans are read without seeking back."""

    def __init__(self, file: InputFile, spec: ReadSpec) -> None: ...

    @staticmethod
    def schema(file: InputFile, text_options: TextOptions) -> pa.Schema:
        """The names and types of the columns, read from as little of the file as possible; empty if the file is."""
        ...

    def spans(self, *, shard_rows: int) -> Iterator[Span]:
        """Cut the file into spans of at most `shard_rows` rows, and hash what each of them will read."""
        ...

    def read(self, span: Span) -> Iterator[Rows]: ...

    def close(self) -> None: ...
