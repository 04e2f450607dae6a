"""Writes tables to Parquet, CSV and JSON Lines.

Invariant: the bytes of a file depend on its rows alone, not on how they were divided into tables.
"""

import base64
import contextlib
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import orjson
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from service.scoring.job import SinkFormat

# Marks a column of texts that each are a JSON value.
JSON_TEXT = {b"ekiben": b"json"}
BLOCK_ROWS = 16384


class Writer(Protocol):
    def write(self, table: pa.Table) -> None: ...

    def close(self) -> None: ...


class Sink:
    """A file that a thread of its own writes, so that the model does not wait for it."""

    def __init__(self, path: Path, sink_format: SinkFormat, schema: pa.Schema) -> None:
        self._writer = WRITERS[sink_format](path, schema)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sink")
        self._buffered: list[pa.Table] = []
        self._buffered_rows = 0
        self._pending: Future[None] | None = None

    def write(self, table: pa.Table) -> None:
        self._buffered.append(table)
        self._buffered_rows += table.num_rows
        if self._buffered_rows >= BLOCK_ROWS:
            self._flush()

    def close(self) -> None:
        """Wait until every row is written. Raises the first error of writing."""
        try:
            self._flush()
            self._wait()
            self._writer.close()
        except BaseException:
            self.discard()
            raise
        self._thread.shutdown()

    def discard(self) -> None:
        """Close a file that will not be committed, whatever state it is in."""
        self._thread.shutdown()
        with contextlib.suppress(OSError, ValueError, pa.ArrowException):
            self._writer.close()

    def _flush(self) -> None:
        self._wait()
        if self._buffered:
            self._pending = self._thread.submit(self._writer.write, pa.concat_tables(self._buffered))
            self._buffered, self._buffered_rows = [], 0

    def _wait(self) -> None:
        if self._pending is not None:
            self._pending.result()


class ParquetWriter:
    """Texts are dictionary-encoded, integers delta-encoded."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._file = path.open("wb")
        texts = [field.name for field in schema if pa.types.is_string(field.type)]
        integers = [field.name for field in schema if pa.types.is_integer(field.type)]
        # Encodings are set by path, and the path of a leaf in a nested column begins with the name of that column.
        nested_prefixes = tuple(f"{field.name}." for field in schema if pa.types.is_nested(field.type))
        encodings = {name: "DELTA_BINARY_PACKED" for name in integers if not name.startswith(nested_prefixes)}
        self._writer = pq.ParquetWriter(
            self._file, _without_metadata(schema), use_dictionary=texts, column_encoding=encodings
        )

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(_unquote_json_texts(table))

    def close(self) -> None:
        try:
            self._writer.close()
        finally:
            self._file.close()


class CsvWriter:
    """Nested values become JSON texts, bytes become base64."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._file = path.open("wb")
        self._writer: pacsv.CSVWriter | None = None
        self._schema = schema

    def write(self, table: pa.Table) -> None:
        flat = _flatten(_unquote_json_texts(table))
        if self._writer is None:
            self._writer = pacsv.CSVWriter(self._file, flat.schema)
        self._writer.write_table(flat)

    def close(self) -> None:
        try:
            if self._writer is None:
                empty = _without_metadata(self._schema).empty_table()
                self._writer = pacsv.CSVWriter(self._file, _flatten(empty).schema)
            self._writer.close()
        finally:
            self._file.close()


class JsonWriter:
    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._file = path.open("wb")
        self._json_columns = [field.name for field in schema if field.metadata == JSON_TEXT]

    def write(self, table: pa.Table) -> None:
        for row in table.to_pylist():
            for name in self._json_columns:
                row[name] = orjson.Fragment(row[name]) if row[name] is not None else None
            self._file.write(to_json(row) + b"\n")

    def close(self) -> None:
        self._file.close()


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
    columns = [
        pa.array([_unquote(text) for text in column.to_pylist()], pa.string())
        if field.metadata == JSON_TEXT
        else column
        for field, column in zip(table.schema, table.columns, strict=True)
    ]
    return pa.table(columns, schema=_without_metadata(table.schema))


def _unquote(text: str | None) -> Any:
    return orjson.loads(text) if text is not None and text.startswith('"') else text


def _flatten(table: pa.Table) -> pa.Table:
    columns = []
    for column in table.columns:
        kind = column.type
        if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind):
            texts = [None if value is None else _csv_cell(value) for value in column.to_pylist()]
            columns.append(pa.array(texts, pa.string()))
        else:
            columns.append(column)
    return pa.table(columns, names=table.schema.names)


def _csv_cell(value: Any) -> str:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else to_json(value).decode()
