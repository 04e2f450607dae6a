"""JSON Lines and plain text. Each line is a row with the number of the line, from 0; blank lines are not rows.

A JSON object that names a key twice is rejected. Values that are copied stay JSON, with numbers as they were written.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, TypeAlias

import orjson
import pyarrow as pa

from service.scoring.input.files import InputFile
from service.scoring.input.nested import has_path, json_value
from service.scoring.input.rows import CHUNK_BYTES, CHUNK_ROWS, MAX_ROW_BYTES, ReadSpec, Rows, Span
from service.scoring.job import ScoringError, TextOptions
from service.scoring.sources.stream import Stream, StreamSource, blocks, line_spans
from service.scoring.sources.text.encoding import BOM, read_sample, text_encoding

TOO_LONG = f"expected a line of at most {MAX_ROW_BYTES} bytes, got a longer one"
TOO_DEEP = "not JSON: nested too deeply"
# Texts by column, and faults by row.
JsonTexts: TypeAlias = tuple[dict[str, list[str | None]], dict[int, str]]
# Marks a column of texts that each are a JSON value.
JSON_TEXT = {b"ekiben": b"json"}


class TextSource(StreamSource):
    """A line is a text. A subclass parses it in `_parse` and makes columns of the values in `_columns`."""

    def __init__(self, file: InputFile, spec: ReadSpec) -> None:
        super().__init__(file, spec, encoding=text_encoding(file, spec.text_options))

    @staticmethod
    def schema(file: InputFile, text_options: TextOptions) -> pa.Schema:
        read_sample(file, text_options)
        return pa.schema([("text", pa.string())])

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
        numbers, values, read, faults = list[int](), list[Any](), list[bytes](), dict[int, str]()
        for number, line in enumerate(lines, first):
            if line is None or self._is_row(line):
                value, fault = (None, TOO_LONG) if line is None else self._parse(line)
                if fault:
                    faults[len(values)] = fault
                numbers.append(number)
                values.append(value)
                read.append(line or b"")
        line_numbers = [number + 1 for number in numbers]
        texts, inexact = self._json_texts(values, read)
        faults |= inexact
        return Rows(numbers=numbers, columns=self._columns(values), faults=faults, lines=line_numbers, json_texts=texts)

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

    def _json_texts(self, values: list[Any], lines: list[bytes]) -> JsonTexts:  # noqa: ARG002
        """The texts of the values that are copied, by column, and the faults of rows that have none."""
        return {}, {}


class JsonSource(TextSource):
    @staticmethod
    def schema(file: InputFile, text_options: TextOptions) -> pa.Schema:
        """The keys of the first objects; later objects may have others."""
        names: dict[str, None] = {}
        sample = read_sample(file, text_options).content
        if sample.lstrip().startswith(b"["):
            raise ScoringError(
                f"{file.name}: begins with a JSON array, expected an object in each line: convert it first"
            )
        for content in _objects(sample):
            names |= dict.fromkeys(content)
        if not names:
            # The first line may be longer than a sample.
            names = next((dict.fromkeys(content) for content in _all_objects(file, text_options)), {})
        return json_schema(names)

    @staticmethod
    def absent_keys(file: InputFile, text_options: TextOptions, keys: Sequence[str]) -> list[str]:
        """The keys that no object of the file has; reads the file until each of them was seen."""
        left = list(keys)
        for content in _all_objects(file, text_options):
            left = [key for key in left if not has_path(content, key)]
            if not left:
                break
        return left

    def _parse(self, line: bytes) -> tuple[Any, str | None]:
        try:
            content = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            return None, f"not JSON: {error.msg} at character {error.pos}"
        if not isinstance(content, dict):
            return None, f"expected a JSON object, got {line[:40]!r}"
        # Each key has a colon, so as many colons as keys leave none for a key that is given twice.
        if line.count(b":") != len(content):
            try:
                key = _repeated_key(line)
            except RecursionError:
                return None, TOO_DEEP
            if key is not None:
                return None, f"the key {key!r:.40} is given twice"
        if self._spec.closed and not content.keys() <= set(self._spec.columns):
            key = next(key for key in content if key not in self._spec.columns)
            return None, f"the first rows do not have the key {key!r:.40}: name each column with --keep"
        return content, None

    def _columns(self, values: list[Any]) -> dict[str, list[Any]]:
        return {
            name: [json_value(value, name) if value else None for value in values]
            if "." in name
            else [value.get(name) if value else None for value in values]
            for name in self._spec.columns
        }

    def _json_texts(self, values: list[Any], lines: list[bytes]) -> JsonTexts:
        names = [name for name in self._spec.columns if name in self._spec.copied]
        texts: dict[str, list[str | None]] = {name: [None] * len(values) for name in names}
        faults: dict[int, str] = {}
        for i, value in enumerate(values if names else ()):
            copied = {name: item for name in names if value and (item := json_value(value, name)) is not None}
            # Numbers with a fraction or beyond 64 bits lose digits, as may those inside of lists and objects; -0 is 0.
            if any(isinstance(item, float | list | dict) or item == 0 for item in copied.values()):
                try:
                    exact = self._exact(lines[i])
                except RecursionError:
                    faults[i] = TOO_DEEP
                    continue
                copied = {name: json_value(exact, name) for name in copied}
            for name, item in copied.items():
                texts[name][i] = orjson.dumps(item).decode()
        return texts, faults

    def _exact(self, line: bytes) -> dict[str, Any]:
        """The object in a line, with numbers as they were written."""
        content: dict[str, Any] = json.loads(line, parse_float=orjson.Fragment, parse_int=orjson.Fragment)
        return content


def json_schema(names: Sequence[str] | dict[str, None]) -> pa.Schema:
    """Columns of JSON texts."""
    return pa.schema([pa.field(name, pa.string(), metadata=JSON_TEXT) for name in names])


def _objects(content: bytes) -> Iterator[dict[str, Any]]:
    for line in content.split(b"\n"):
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if isinstance(value, dict):
            yield value


def _all_objects(file: InputFile, text_options: TextOptions) -> Iterator[dict[str, Any]]:
    with closing(Stream(file, text_encoding(file, text_options))) as stream:
        for block in blocks(stream):
            yield from _objects(block.content.removeprefix(BOM))


def _repeated_key(line: bytes) -> str | None:
    """The first key that an object in the line names twice."""
    repeated = list[str]()

    def check(pairs: list[tuple[str, Any]]) -> None:
        seen = set[str]()
        for key, _ in pairs:
            if key in seen:
                repeated.append(key)
            seen.add(key)

    # Numbers stay texts, which costs nothing and has no limit of digits.
    json.loads(line, object_pairs_hook=check, parse_int=str, parse_float=str)
    return repeated[0] if repeated else None
