"""Writes Parquet, CSV and JSON Lines. Invariant: a file's bytes depend on its rows, not on how tables divide them."""

import base64
import contextlib
import re
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from service.scoring.job import SinkFormat
from service.scoring.sources.text.lines import JSON_TEXT

BLOCK_ROWS = 16384
# The first characters of what a spreadsheet runs, unless the text is a number.
FORMULA = re.compile(r"^[=+\-@\t\r]")
NUMBER = r"^[+\-]?[0-9]*\.?[0-9]+([eE][+\-]?[0-9]+)?$"


class Sink(contextlib.AbstractContextManager["Sink"]):
    """A file that a thread of its own writes, so that the model does not wait. The first table creates it."""

    def __init__(self, path: Path, sink_format: SinkFormat, *, escape_formulas: bool = False) -> None:
        self.path = path
        self._writer = EscapingCsvWriter if escape_formulas else WRITERS[sink_format]
        self.is_created = False
        # The writer and its file while they are open.
        self._opened: list[Any] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sink")
        self._buffered: list[pa.Table] = []
        self._pending: Future[None] | None = None

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """Wait until every row is written; raises the first error of writing. After an error only close the file."""
        try:
            if error is None:
                self._flush()
                self._wait()
                for opened in self._opened:
                    opened.close()
                self._opened = []
        finally:
            self._thread.shutdown()
            for opened in self._opened:
                with contextlib.suppress(OSError, ValueError, pa.ArrowException):
                    opened.close()

    def write(self, table: pa.Table) -> None:
        if not self.is_created:
            self._opened = self._open(table.schema)
            self.is_created = True
        self._buffered.append(table)
        if sum(buffered.num_rows for buffered in self._buffered) >= BLOCK_ROWS:
            self._flush()

    def parts(self, name: str) -> dict[str, Path]:
        """The written files by their paths below the output, if they are called `name`."""
        return {f"predictions/{name}": self.path} if self.is_created else {}

    def _open(self, schema: pa.Schema) -> list[Any]:
        """A writer, and its file, to be closed in this order."""
        file = self.path.open("wb")
        return [self._writer(file, schema), file]

    def _flush(self) -> None:
        self._wait()
        if self._buffered:
            self._pending = self._thread.submit(self._opened[0].write, pa.concat_tables(self._buffered))
            self._buffered = []

    def _wait(self) -> None:
        if self._pending is not None:
            self._pending.result()


class ParquetWriter:
    """Texts are dictionary-encoded, integers delta-encoded."""

    def __init__(self, file: IO[bytes], schema: pa.Schema) -> None:
        texts = [field.name for field in schema if pa.types.is_string(field.type)]
        integers = [field.name for field in schema if pa.types.is_integer(field.type)]
        # Encodings are set by path, and the path of a leaf in a nested column begins with the name of that column.
        nested_prefixes = tuple(f"{field.name}." for field in schema if pa.types.is_nested(field.type))
        encodings = {name: "DELTA_BINARY_PACKED" for name in integers if not name.startswith(nested_prefixes)}
        schema = _without_metadata(schema)
        self._writer = pq.ParquetWriter(file, schema, use_dictionary=texts, column_encoding=encodings)
        self.close = self._writer.close

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(_unquote_json_texts(table))


class CsvWriter:
    """Nested values become JSON texts, bytes become base64."""

    def __init__(self, file: IO[bytes], schema: pa.Schema) -> None:
        self._writer = pacsv.CSVWriter(file, self._cells(_without_metadata(schema).empty_table()).schema)
        self.close = self._writer.close

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(self._cells(_unquote_json_texts(table)))

    def _cells(self, table: pa.Table) -> pa.Table:
        return _flatten(table)


class EscapingCsvWriter(CsvWriter):
    """Puts an apostrophe before each text and name that a spreadsheet would run as a formula."""

    def _cells(self, table: pa.Table) -> pa.Table:
        table = _flatten(table)
        names = [f"'{name}" if FORMULA.match(name) else name for name in table.schema.names]
        for i, field in enumerate(table.schema):
            if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
                texts = table.column(i)
                is_formula = pc.match_substring_regex(texts, FORMULA.pattern)
                is_number = pc.match_substring_regex(texts, NUMBER)
                escaped = pc.binary_join_element_wise(pa.scalar("'", field.type), texts, pa.scalar("", field.type))
                texts = pc.if_else(pc.and_(is_formula, pc.invert(is_number)), escaped, texts)
                table = table.set_column(i, field, texts)
        return table.rename_columns(names)


class JsonWriter:
    def __init__(self, file: IO[bytes], schema: pa.Schema) -> None:
        self._file = file
        self._json_columns = [field.name for field in schema if field.metadata == JSON_TEXT]

    def write(self, table: pa.Table) -> None:
        for row in table.to_pylist():
            for name in self._json_columns:
                row[name] = orjson.Fragment(row[name]) if row[name] is not None else None
            self._file.write(to_json(row) + b"\n")

    def close(self) -> None:
        """Nothing is buffered."""


WRITERS: Mapping[SinkFormat, Any] = {"parquet": ParquetWriter, "csv": CsvWriter, "jsonl": JsonWriter}


def to_json(value: Any) -> bytes:
    """Encode a value as JSON; bytes become base64."""
    return orjson.dumps(value, default=_json_default)


def _json_default(value: Any) -> str:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


def _without_metadata(schema: pa.Schema) -> pa.Schema:
    return pa.schema([field.with_metadata(None) for field in schema])


def _unquote_json_texts(table: pa.Table) -> pa.Table:
    """Replace JSON strings by their text in columns of JSON values; other values stay JSON."""
    for i, field in enumerate(table.schema):
        if field.metadata == JSON_TEXT:
            texts = table.column(i).to_pylist()
            texts = [orjson.loads(text) if text is not None and text.startswith('"') else text for text in texts]
            table = table.set_column(i, field, pa.array(texts, pa.string()))
    return pa.table(table.columns, schema=_without_metadata(table.schema))


def _flatten(table: pa.Table) -> pa.Table:
    for i, field in enumerate(table.schema):
        kind = field.type
        if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind):
            texts = [None if value is None else _csv_cell(value) for value in table.column(i).to_pylist()]
            table = table.set_column(i, field.name, pa.array(texts, pa.string()))
    return table


def _csv_cell(value: Any) -> str:
    return _json_default(value) if isinstance(value, bytes) else to_json(value).decode()
