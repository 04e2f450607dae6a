"""CSV and TSV as the standard library reads them: quoted fields may hold delimiters, doubled quotes and line ends.

Shards are cut between records by the same parser that later reads them, so a line end inside quotes never cuts a
record. Fields are texts; their types are not guessed. A record with too few or too many fields, a field that is not
UTF-8, a quote that is never closed, or a record that another dialect reads as other fields is one fault; reading
continues after it.
"""

import csv
import io
import json
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pyarrow as pa
from xxhash import xxh3_128

from service.scoring.input.files import InputFile
from service.scoring.input.rows import CHUNK_BYTES, CHUNK_ROWS, SHARD_BYTES, ReadSpec, Rows, Span
from service.scoring.job import ScoringError, TextOptions
from service.scoring.sources.stream import Stream, StreamSource, blocks
from service.scoring.sources.text.csv_dialect import BACKSLASH, CsvDialect, resolve_dialect
from service.scoring.sources.text.encoding import BOM, HINT, read_sample
from service.scoring.sources.text.lines import TOO_LONG

# The most that a quote which is never closed can swallow.
MAX_FIELD_CHARS = 1 << 20
LATIN_BOM = BOM.decode("latin-1")
# The field limit of the csv module belongs to the whole process; the lock keeps two threads from mixing up its values.
_field_limit_lock = threading.Lock()


class _Records:
    """The records from a position of a file. `position` and `line` are those after the last record.

    Bytes are decoded as Latin-1, which keeps every byte, so that a field that is not UTF-8 faults its record alone.
    """

    def __init__(
        self, stream: Stream, csv_dialect: CsvDialect, *, stop: int | None, line: int, hashed: bool = False
    ) -> None:
        self.position, self.line = stream.position, line
        self.hash = xxh3_128()
        self._hashed, self._ended = hashed, False
        self._stream, self._stop, self._csv_dialect = stream, stop, csv_dialect
        # The lines of the record being parsed, if a backslash stands before a quote in one of them.
        self._lines_of_record, self._has_backslash = list[str](), False
        self._reader = csv_dialect.reader(self._lines())

    def __iter__(self) -> Iterator[tuple[int, list[str] | str]]:
        """Yield the first line of each record and its fields, or its fault. Empty lines are not records."""
        while True:
            line, self._lines_of_record, self._has_backslash = self.line, [], False
            try:
                fields: list[str] | str = self._parse_record()
            except StopIteration:
                return
            except csv.Error as error:
                fields = f"not CSV: {error}" + (f" (lines {line} to {self.line - 1})" if self.line > line + 1 else "")
            if fields == [TOO_LONG]:
                fields = TOO_LONG
            # The parser asked for another line after the last one, so it was inside quotes.
            elif self._ended and (not isinstance(fields, str) or "unexpected end" in fields):
                fields = f"not CSV: a quote is never closed (lines {line} to {self.line - 1})"
            elif self._has_backslash:
                fields = self._check_escape(fields)
            if fields:
                yield line, fields

    def _check_escape(self, fields: list[str] | str) -> list[str] | str:
        """The fields, or a fault if they would be others with a backslash that escapes a quote."""
        if isinstance(fields, str):
            return f"{fields}; {BACKSLASH}"
        escaped, error = replace(self._csv_dialect, escape="\\").parse(self._lines_of_record)
        is_cut = error is not None and "unexpected end" in error
        return BACKSLASH if is_cut or (error is None and escaped != [fields]) else fields

    def _parse_record(self) -> list[str]:
        """Parse the next record with our own field limit, then restore the limit of the process."""
        with _field_limit_lock:
            before = csv.field_size_limit(MAX_FIELD_CHARS)
            try:
                return next(self._reader)
            finally:
                csv.field_size_limit(before)

    def _lines(self) -> Iterator[str]:
        escaped_quote = None
        if self._csv_dialect.escape is None and self._csv_dialect.quote:
            escaped_quote = "\\" + self._csv_dialect.quote
        for block in blocks(self._stream, stop=self._stop):
            if not block.content:
                self._advance(block.size, block.size.to_bytes(8, "little"))
                yield f'"{TOO_LONG}"\n' if self._csv_dialect.quote == '"' else f"{TOO_LONG}\n"
                continue
            content = block.content
            if self.position == 0 and content.startswith(BOM):
                content = content.removeprefix(BOM)
                self.position += len(BOM)
            is_suspect = escaped_quote is not None and escaped_quote.encode("latin-1") in content
            for text in io.TextIOWrapper(io.BytesIO(content), encoding="latin-1", newline="\n"):
                self._advance(len(text), text.encode("latin-1") if self._hashed else b"")
                if is_suspect:
                    self._lines_of_record.append(text)
                    self._has_backslash = self._has_backslash or str(escaped_quote) in text
                yield text
        self._ended = True

    def _advance(self, size: int, content: bytes) -> None:
        self.position += size
        self.line += 1
        if self._hashed:
            self.hash.update(content)


class CsvSource(StreamSource):
    def __init__(self, file: InputFile, spec: ReadSpec) -> None:
        self._csv_dialect, self._header, encoding = _open(file, spec.text_options)
        super().__init__(file, spec, encoding=encoding)
        self._names = _names(file, self._header, has_header=spec.text_options.header)
        self._positions = {name: self._names.index(name) for name in spec.columns}

    @staticmethod
    def schema(file: InputFile, text_options: TextOptions) -> pa.Schema:
        _, first, _ = _open(file, text_options)
        return pa.schema([(name, pa.string()) for name in _names(file, first, has_header=text_options.header)])

    def spans(self, *, shard_rows: int) -> Iterator[Span]:
        # The columns give every record its meaning, so every digest covers them.
        layout = json.dumps(self._names).encode()
        records = _Records(self._stream, self._csv_dialect, stop=None, line=1, hashed=True)
        iterator = iter(records)
        for _ in range(self._csv_dialect.preamble + (1 if self._spec.text_options.header else 0)):
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
        records = _Records(self._stream, self._csv_dialect, stop=span.stop, line=span.first_line)
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
            elif self._spec.text_options.header and self._is_header(fields):
                faults[i] = "repeats the header"
            else:
                for name, position in self._positions.items():
                    try:
                        columns[name][i] = _utf8(fields[position])
                    except UnicodeDecodeError as error:
                        faults[i] = f"column {name!r} is not UTF-8: byte 0x{error.object[error.start]:02x}"
        return Rows(numbers=range(number, number + len(records)), columns=columns, faults=faults, lines=lines)

    def _is_header(self, fields: list[str]) -> bool:
        """Whether a record is the header again, as in files that were joined; a mark before it hides its quotes."""
        if fields[0].startswith(LATIN_BOM):
            fields = [fields[0].removeprefix(LATIN_BOM).strip(self._csv_dialect.quote), *fields[1:]]
        return fields == self._header


def _open(file: InputFile, text_options: TextOptions) -> tuple[CsvDialect, list[str], str | None]:
    """The dialect of a file, its first record as Latin-1 (no fields if it has none), and its encoding."""
    sample = read_sample(file, text_options)
    resolved = resolve_dialect(file, sample.content, text_options)
    with closing(Stream(file, sample.encoding)) as stream:
        records = iter(_Records(stream, resolved, stop=None, line=1))
        for _ in range(resolved.preamble):
            next(records)
        line, first = next(records, (0, list[str]()))
    if isinstance(first, str):
        raise ScoringError(f"{file.name}: line {line}: {first}")
    return resolved, first, sample.encoding


def _names(file: InputFile, first: list[str], *, has_header: bool) -> tuple[str, ...]:
    """The names of the columns by the first record, or their numbers. Raises ScoringError if one is given twice."""
    if not has_header:
        return tuple(map(str, range(len(first))))
    try:
        names = tuple(map(_utf8, first))
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise ScoringError(f"{file.name}: the header is not UTF-8 (byte 0x{byte:02x}): {HINT}") from error
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ScoringError(f"{file.name}: the header names {', '.join(map(repr, repeated))} more than once")
    return names


def _utf8(text: str) -> str:
    """Decode as UTF-8 a field that was read as Latin-1."""
    return text if text.isascii() else text.encode("latin-1").decode()
