"""JSON Lines and plain text. Each line is a row with the number of the line, from 0; blank lines are not rows."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import orjson

from service.scoring.input.files import InputFile
from service.scoring.input.rows import CHUNK_BYTES, CHUNK_ROWS, MAX_ROW_BYTES, Rows, Span
from service.scoring.sources.stream import Stream, StreamSource, blocks, line_spans

TOO_LONG = f"expected a line of at most {MAX_ROW_BYTES} bytes, got a longer one"
BOM = b"\xef\xbb\xbf"


class TextSource(StreamSource):
    """A line is a text. A subclass parses it in `_parse` and makes columns of the values in `_columns`."""

    @staticmethod
    def columns(file: InputFile, *, header: bool) -> tuple[str, ...]:  # noqa: ARG004
        return ("text",)

    def spans(self, *, shard_rows: int) -> Iterator[Span]:
        return line_spans(self._stream, shard_rows=shard_rows)

    def read(self, span: Span) -> Iterator[Rows]:
        self._stream.seek(span.start)
        first, lines, size = span.first_row, list[bytes | None](), 0
        for block in blocks(self._stream, stop=span.stop):
            content = block.content.removeprefix(BOM) if first == 0 and not lines else block.content
            # None stands for a line that is too long.
            lines += content.removesuffix(b"\n").split(b"\n") if block.content else [None]
            size += block.size
            complete = len(lines) if size >= CHUNK_BYTES else len(lines) // CHUNK_ROWS * CHUNK_ROWS
            for begin in range(0, complete, CHUNK_ROWS):
                yield self._chunk(first + begin, lines[begin : min(begin + CHUNK_ROWS, complete)])
            if complete:
                first, lines, size = first + complete, lines[complete:], 0
        if lines:
            yield self._chunk(first, lines)

    def _chunk(self, first: int, lines: Sequence[bytes | None]) -> Rows:
        numbers, values, faults = list[int](), list[Any](), dict[int, str]()
        for number, line in enumerate(lines, first):
            if line is None or self._is_row(line):
                value, fault = (None, TOO_LONG) if line is None else self._parse(line)
                if fault:
                    faults[len(values)] = fault
                numbers.append(number)
                values.append(value)
        line_numbers = [number + 1 for number in numbers]
        return Rows(numbers=numbers, columns=self._columns(values), faults=faults, lines=line_numbers)

    def _is_row(self, line: bytes) -> bool:
        return bool(line.strip())

    def _parse(self, line: bytes) -> tuple[Any, str | None]:
        """The value of a line, and the fault of one that cannot be parsed."""
        try:
            return line.removesuffix(b"\r").decode(), None
        except UnicodeDecodeError as error:
            return None, f"not UTF-8: byte 0x{line[error.start]:02x} at {error.start}"

    def _columns(self, values: list[Any]) -> dict[str, list[Any]]:
        return {"text": values}


class JsonSource(TextSource):
    @staticmethod
    def columns(file: InputFile, *, header: bool) -> tuple[str, ...]:  # noqa: ARG004
        """The keys of the first object; later objects may have others."""
        with closing(Stream(file)) as stream:
            for block in blocks(stream):
                for line in block.content.removeprefix(BOM).split(b"\n"):
                    try:
                        content = orjson.loads(line)
                    except orjson.JSONDecodeError:
                        continue
                    if isinstance(content, dict):
                        return tuple(content)
        return ()

    def _parse(self, line: bytes) -> tuple[Any, str | None]:
        try:
            content = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            return None, f"not JSON: {error.msg} at character {error.pos}"
        if isinstance(content, dict):
            return content, None
        return None, f"expected a JSON object, got {line[:40]!r}"

    def _columns(self, values: list[Any]) -> dict[str, list[Any]]:
        return {name: [value.get(name) if value else None for value in values] for name in self._spec.columns}
