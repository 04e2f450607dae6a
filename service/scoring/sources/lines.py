"""JSON Lines and plain text: one row per line.

The number of a row is the number of its line, from 0. Blank lines have a number, but are no rows.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from service.scoring.input.files import InputFile
from service.scoring.input.rows import CHUNK_BYTES, CHUNK_ROWS, MAX_ROW_BYTES, ReadSpec, Rows, Span
from service.scoring.sources.stream import Stream, blocks, line_spans

TOO_LONG = f"expected a line of at most {MAX_ROW_BYTES} bytes, got a longer one"
BOM = b"\xef\xbb\xbf"


class LineReader:
    """Reads a span as chunks of lines; a subclass parses them in `_values`. A line that is too long is None."""

    def __init__(self, file: InputFile, spec: ReadSpec) -> None:
        self._stream = Stream(file)
        self._spec = spec

    def read(self, span: Span) -> Iterator[Rows]:
        self._stream.seek(span.start)
        first, lines, size = span.first_row, list[bytes | None](), 0
        for block in blocks(self._stream, stop=span.stop):
            content = block.content.removeprefix(BOM) if first == 0 and not lines else block.content
            new: list[bytes | None] = [None] if not block.content else list(content.removesuffix(b"\n").split(b"\n"))
            for begin in range(0, len(new), CHUNK_ROWS):
                lines += new[begin : begin + CHUNK_ROWS]
                while len(lines) >= CHUNK_ROWS:
                    yield self._chunk(first, lines[:CHUNK_ROWS])
                    first, lines, size = first + CHUNK_ROWS, lines[CHUNK_ROWS:], 0
            size += block.size
            if size >= CHUNK_BYTES:
                yield self._chunk(first, lines)
                first, lines, size = first + len(lines), [], 0
        if lines:
            yield self._chunk(first, lines)

    def close(self) -> None:
        self._stream.close()

    def _chunk(self, first: int, lines: Sequence[bytes | None]) -> Rows:
        indexes = [i for i, line in enumerate(lines) if line is None or line.strip()]
        values, faults = self._values([lines[i] for i in indexes])
        numbers = [first + i for i in indexes]
        return Rows(numbers=numbers, columns=values, faults=faults, lines=[number + 1 for number in numbers])

    def _values(self, lines: Sequence[bytes | None]) -> tuple[dict[str, list[Any]], dict[int, str]]:
        """The columns of some lines, and the faults of those that cannot be parsed."""
        raise NotImplementedError


class JsonReader(LineReader):
    def _values(self, lines: Sequence[bytes | None]) -> tuple[dict[str, list[Any]], dict[int, str]]:
        faults: dict[int, str] = {}
        objects: list[dict[str, Any]] = []
        for i, line in enumerate(lines):
            content: Any = {}
            if line is None:
                faults[i] = TOO_LONG
            else:
                try:
                    content = orjson.loads(line)
                except orjson.JSONDecodeError as error:
                    faults[i] = f"not JSON: {error.msg} at character {error.pos}"
                if not isinstance(content, dict):
                    faults[i] = f"expected a JSON object, got {line[:40]!r}"
                    content = {}
            objects.append(content)
        return {name: [item.get(name) for item in objects] for name in self._spec.columns}, faults


class TextReader(LineReader):
    def _values(self, lines: Sequence[bytes | None]) -> tuple[dict[str, list[Any]], dict[int, str]]:
        faults: dict[int, str] = {}
        texts: list[str | None] = []
        for i, line in enumerate(lines):
            text = None
            if line is None:
                faults[i] = TOO_LONG
            else:
                try:
                    text = line.removesuffix(b"\r").decode()
                except UnicodeDecodeError as error:
                    faults[i] = f"not UTF-8: byte 0x{line[error.start]:02x} at {error.start}"
            texts.append(text)
        return {"text": texts}, faults


class JsonSource:
    def columns(self, file: InputFile, *, header: bool) -> tuple[str, ...]:  # noqa: ARG002
        """The keys of the first object; later objects may have others."""
        stream = Stream(file)
        try:
            for block in blocks(stream):
                for line in block.content.removeprefix(BOM).split(b"\n"):
                    try:
                        content = orjson.loads(line)
                    except orjson.JSONDecodeError:
                        continue
                    if isinstance(content, dict):
                        return tuple(content)
            return ()
        finally:
            stream.close()

    def spans(self, file: InputFile, spec: ReadSpec, *, shard_rows: int) -> Iterator[Span]:  # noqa: ARG002
        return line_spans(file, shard_rows=shard_rows)

    def open(self, file: InputFile, spec: ReadSpec) -> JsonReader:
        return JsonReader(file, spec)


class TextSource:
    def columns(self, file: InputFile, *, header: bool) -> tuple[str, ...]:  # noqa: ARG002
        return ("text",)

    def spans(self, file: InputFile, spec: ReadSpec, *, shard_rows: int) -> Iterator[Span]:  # noqa: ARG002
        return line_spans(file, shard_rows=shard_rows)

    def open(self, file: InputFile, spec: ReadSpec) -> TextReader:
        return TextReader(file, spec)
