"""CSV and TSV as the standard library reads them: quoted fields may hold delimiters, quotes (doubled) and line ends.

Shards are cut between records, found by the same reader that later reads them, so a line end inside quotes never cuts.
Fields are texts; nothing is guessed. A record with too few or too many fields, a field that is not UTF-8, or a quote
that is never closed is one fault; the reader goes on behind it.
"""

import csv
import io
import json
import threading
from collections.abc import Iterator, Sequence

from xxhash import xxh3_128

from service.scoring.files import InputFile
from service.scoring.job import ScoringError
from service.scoring.rows import CHUNK_BYTES, CHUNK_ROWS, SHARD_BYTES, Rows, Span, Want
from service.scoring.sources.lines import BOM, TOO_LONG
from service.scoring.sources.stream import Stream, blocks

MAX_FIELD_CHARS = 1 << 20  # a quote that is never closed swallows at most so much
_limit = threading.Lock()  # of csv's limit: two threads do not restore each other's


class _Records:
    """Records of a stretch of a file, each with the position and line behind it; bytes are kept as Latin-1."""

    def __init__(self, stream: Stream, *, stop: int | None, line: int, hashed: bool = False) -> None:
        self.position, self.line = stream.position, line
        self.hash = xxh3_128()
        self._hashed, self._ended = hashed, False
        self._stream, self._stop = stream, stop
        delimiter = "\t" if ".tsv" in stream.file.name.lower() else ","
        self._reader = csv.reader(self._lines(), delimiter=delimiter)

    def __iter__(self) -> Iterator[tuple[int, list[str] | str]]:
        """(its first line, its fields or why there are none); empty lines are no records."""
        while True:
            line = self.line
            try:
                fields: list[str] | str = self._parse()
            except StopIteration:
                return
            except csv.Error as error:
                fields = f"not CSV: {error}" + (f" (lines {line} to {self.line - 1})" if self.line > line + 1 else "")
            if fields == [TOO_LONG]:
                fields = TOO_LONG
            elif self._ended and not isinstance(fields, str):  # csv looked for more: it was inside quotes
                fields = f"not CSV: a quote is never closed (lines {line} to {self.line - 1})"
            if fields:
                yield line, fields

    def _parse(self) -> list[str]:
        """The next record, under our own limit: csv's belongs to the whole process, which may be a user's."""
        with _limit:
            before = csv.field_size_limit(MAX_FIELD_CHARS)
            try:
                return next(self._reader)
            finally:
                csv.field_size_limit(before)

    def _lines(self) -> Iterator[str]:
        for block in blocks(self._stream, stop=self._stop):
            if not block.content:
                self._advance(block.size, block.size.to_bytes(8, "little"))
                yield f'"{TOO_LONG}"\n'
                continue
            content = block.content
            if self.position == 0 and content.startswith(BOM):
                content = content.removeprefix(BOM)
                self.position += len(BOM)
            for text in io.TextIOWrapper(io.BytesIO(content), encoding="latin-1", newline="\n"):
                self._advance(len(text), text.encode("latin-1") if self._hashed else b"")
                yield text
        self._ended = True

    def _advance(self, size: int, content: bytes) -> None:
        self.position += size
        self.line += 1
        if self._hashed:
            self.hash.update(content)


class CsvSource:
    def columns(self, file: InputFile, *, header: bool) -> tuple[str, ...]:
        stream = Stream(file)
        try:
            first = next((fields for _, fields in _Records(stream, stop=None, line=1)), [])
        finally:
            stream.close()
        if isinstance(first, str):
            raise ScoringError(f"{file.name}: line 1: {first}")
        return _names(file, first) if header else tuple(str(i) for i in range(len(first)))

    def spans(self, file: InputFile, want: Want, *, shard_rows: int, last: bool) -> Iterator[Span]:  # noqa: ARG002
        layout = json.dumps(self.columns(file, header=want.header)).encode()  # of every record, wherever it is
        stream = Stream(file)
        records = _Records(stream, stop=None, line=1, hashed=True)
        found = iter(records)
        if want.header:
            next(found, None)
        start, first_line, first_row, rows = records.position, records.line, 0, 0

        def span() -> Span:
            return Span(
                first_row=first_row,
                rows=rows,
                start=start,
                stop=records.position,
                first_line=first_line,
                digest=records.hash.hexdigest(),
            )

        records.hash = xxh3_128(layout)
        for _ in found:
            rows += 1
            if rows == shard_rows or records.position - start >= SHARD_BYTES:
                yield span()
                start, first_line, first_row, rows = records.position, records.line, first_row + rows, 0
                records.hash = xxh3_128(layout)
        if rows:
            yield span()
        stream.close()

    def open(self, file: InputFile, want: Want) -> "CsvReader":
        return CsvReader(file, want, self.columns(file, header=want.header))


class CsvReader:
    def __init__(self, file: InputFile, want: Want, names: Sequence[str]) -> None:
        self._stream = Stream(file)
        self._width = len(names)
        self._wanted = {name: list(names).index(name) for name in want.columns}

    def read(self, span: Span) -> Iterator[Rows]:
        self._stream.seek(span.start)
        records = _Records(self._stream, stop=span.stop, line=span.first_line)
        number, lines, held, begun = span.first_row, list[int](), list[list[str] | str](), records.position
        for line, fields in records:
            lines.append(line)
            held.append(fields)
            if len(held) == CHUNK_ROWS or records.position - begun >= CHUNK_BYTES:
                yield self._rows(number, lines, held)
                number, lines, held, begun = number + len(held), [], [], records.position
        if held:
            yield self._rows(number, lines, held)

    def close(self) -> None:
        self._stream.close()

    def _rows(self, number: int, lines: list[int], held: list[list[str] | str]) -> Rows:
        faults: dict[int, str] = {}
        columns: dict[str, list[str | None]] = {name: [None] * len(held) for name in self._wanted}
        for i, fields in enumerate(held):
            if isinstance(fields, str):
                faults[i] = fields
            elif len(fields) != self._width:
                faults[i] = f"expected {self._width} fields, got {len(fields)}"
            else:
                for name, place in self._wanted.items():
                    try:
                        columns[name][i] = _utf8(fields[place])
                    except UnicodeDecodeError as error:
                        faults[i] = f"column {name!r} is not UTF-8: byte 0x{error.object[error.start]:02x}"
        return Rows(numbers=range(number, number + len(held)), columns=columns, faults=faults, lines=lines)


def _utf8(text: str) -> str:
    return text if text.isascii() else text.encode("latin-1").decode()


def _names(file: InputFile, fields: Sequence[str]) -> tuple[str, ...]:
    names = tuple(_utf8(field) for field in fields)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ScoringError(f"{file.name}: the header names {', '.join(map(repr, twice))} more than once")
    return names
