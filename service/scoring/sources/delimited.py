"""CSV and TSV as the standard library reads them: quoted fields may hold delimiters, doubled quotes and line ends.

Shards are cut between records by the same parser that later reads them, so a line end inside quotes never cuts a
record. Fields are texts; their types are not guessed. A record with too few or too many fields, a field that is not
UTF-8, or a quote that is never closed is one fault; reading continues after it.
"""

import csv
import io
import json
import threading
from collections.abc import Iterator
from contextlib import closing

from xxhash import xxh3_128

from service.scoring.input.files import InputFile
from service.scoring.input.rows import CHUNK_BYTES, CHUNK_ROWS, SHARD_BYTES, ReadSpec, Rows, Span
from service.scoring.job import ScoringError
from service.scoring.sources.lines import BOM, TOO_LONG
from service.scoring.sources.stream import Stream, StreamSource, blocks

# The most that a quote which is never closed can swallow.
MAX_FIELD_CHARS = 1 << 20
# The field limit of the csv module belongs to the whole process; the lock keeps two threads from mixing up its values.
_field_limit_lock = threading.Lock()


class _Records:
    """The records from a position of a file. `position` and `line` are those after the last record.

    Bytes are decoded as Latin-1, which keeps every byte, so that a field that is not UTF-8 faults its record alone.
    """

    def __init__(self, stream: Stream, *, stop: int | None, line: int, hashed: bool = False) -> None:
        self.position, self.line = stream.position, line
        self.hash = xxh3_128()
        self._hashed, self._ended = hashed, False
        self._stream, self._stop = stream, stop
        delimiter = "\t" if ".tsv" in stream.file.name.lower() else ","
        self._reader = csv.reader(self._lines(), delimiter=delimiter)

    def __iter__(self) -> Iterator[tuple[int, list[str] | str]]:
        """Yield the first line of each record and its fields, or its fault. Empty lines are not records."""
        while True:
            line = self.line
            try:
                fields: list[str] | str = self._parse_record()
            except StopIteration:
                return
            except csv.Error as error:
                fields = f"not CSV: {error}" + (f" (lines {line} to {self.line - 1})" if self.line > line + 1 else "")
            if fields == [TOO_LONG]:
                fields = TOO_LONG
            # The parser asked for another line after the last one, so it was inside quotes.
            elif self._ended and not isinstance(fields, str):
                fields = f"not CSV: a quote is never closed (lines {line} to {self.line - 1})"
            if fields:
                yield line, fields

    def _parse_record(self) -> list[str]:
        """Parse the next record with our own field limit, then restore the limit of the process."""
        with _field_limit_lock:
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


class CsvSource(StreamSource):
    def __init__(self, file: InputFile, spec: ReadSpec) -> None:
        super().__init__(file, spec)
        self._names = self.columns(file, header=spec.header)
        self._positions = {name: self._names.index(name) for name in spec.columns}

    @staticmethod
    def columns(file: InputFile, *, header: bool) -> tuple[str, ...]:
        with closing(Stream(file)) as stream:
            first = next((fields for _, fields in _Records(stream, stop=None, line=1)), [])
        if isinstance(first, str):
            raise ScoringError(f"{file.name}: line 1: {first}")
        if not header:
            return tuple(map(str, range(len(first))))
        names = tuple(map(_utf8, first))
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ScoringError(f"{file.name}: the header names {', '.join(map(repr, repeated))} more than once")
        return names

    def spans(self, *, shard_rows: int) -> Iterator[Span]:
        # The columns give every record its meaning, so every digest covers them.
        layout = json.dumps(self._names).encode()
        records = _Records(self._stream, stop=None, line=1, hashed=True)
        iterator = iter(records)
        if self._spec.header:
            next(iterator, None)
        first_row = 0
        while True:
            start, first_line, rows = records.position, records.line, 0
            records.hash = xxh3_128(layout)
            for _ in iterator:
                rows += 1
                if rows == shard_rows or records.position - start >= SHARD_BYTES:
                    break
            if not rows:
                return
            yield Span(
                first_row=first_row,
                rows=rows,
                start=start,
                stop=records.position,
                first_line=first_line,
                digest=records.hash.hexdigest(),
            )
            first_row += rows

    def read(self, span: Span) -> Iterator[Rows]:
        self._stream.seek(span.start)
        records = _Records(self._stream, stop=span.stop, line=span.first_line)
        number, lines, buffered, start = span.first_row, list[int](), list[list[str] | str](), records.position
        for line, fields in records:
            lines.append(line)
            buffered.append(fields)
            if len(buffered) == CHUNK_ROWS or records.position - start >= CHUNK_BYTES:
                yield self._rows(number, lines, buffered)
                number, lines, buffered, start = number + len(buffered), [], [], records.position
        if buffered:
            yield self._rows(number, lines, buffered)

    def _rows(self, number: int, lines: list[int], records: list[list[str] | str]) -> Rows:
        faults: dict[int, str] = {}
        columns: dict[str, list[str | None]] = {name: [None] * len(records) for name in self._positions}
        for i, fields in enumerate(records):
            if isinstance(fields, str):
                faults[i] = fields
            elif len(fields) != len(self._names):
                faults[i] = f"expected {len(self._names)} fields, got {len(fields)}"
            else:
                for name, position in self._positions.items():
                    try:
                        columns[name][i] = _utf8(fields[position])
                    except UnicodeDecodeError as error:
                        faults[i] = f"column {name!r} is not UTF-8: byte 0x{error.object[error.start]:02x}"
        return Rows(numbers=range(number, number + len(records)), columns=columns, faults=faults, lines=lines)


def _utf8(text: str) -> str:
    """Decode as UTF-8 a field that was read as Latin-1."""
    return text if text.isascii() else text.encode("latin-1").decode()
