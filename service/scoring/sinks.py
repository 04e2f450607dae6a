"""Tables to files. The bytes depend on the rows alone, not on how they came in tables.

A sink writes on a thread of its own, behind the model; closing it waits for the last row and raises what went wrong.
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

JSON_TEXT = {b"ekiben": b"json"}  # a column of texts that each are a JSON value
BLOCK_ROWS = 16384


class Writer(Protocol):
    def write(self, table: pa.Table) -> None: ...

    def close(self) -> None: ...


class Sink:
    def __init__(self, path: Path, form: SinkFormat, schema: pa.Schema) -> None:
        self._writer = WRITERS[form](path, schema)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sink")
        self._held: list[pa.Table] = []
        self._held_rows = 0
        self._pending: Future[None] | None = None

    def write(self, table: pa.Table) -> None:
        self._held.append(table)
        self._held_rows += table.num_rows
        if self._held_rows >= BLOCK_ROWS:
            self._flush()

    def close(self) -> None:
        """Wait until every row is written; raises what kept one from being."""
        try:
            self._flush()
            self._wait()
            self._writer.close()
        except BaseException:
            self.abandon()
            raise
        self._thread.shutdown()

    def abandon(self) -> None:
        """Let go of a file that nobody will see."""
        self._thread.shutdown()
        with contextlib.suppress(OSError, ValueError, pa.ArrowException):
            self._writer.close()

    def _flush(self) -> None:
        self._wait()
        if self._held:
            self._pending = self._thread.submit(self._writer.write, pa.concat_tables(self._held))
            self._held, self._held_rows = [], 0

    def _wait(self) -> None:
        if self._pending is not None:
            self._pending.result()


class ParquetWriter:
    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._file = path.open("wb")
        texts = [field.name for field in schema if pa.types.is_string(field.type)]
        inner = tuple(f"{field.name}." for field in schema if pa.types.is_nested(field.type))  # begin paths of leaves
        whole = [field.name for field in schema if pa.types.is_integer(field.type)]
        numbers = {name: "DELTA_BINARY_PACKED" for name in whole if not name.startswith(inner)}
        self._writer = pq.ParquetWriter(
            self._file, _without_marks(schema), use_dictionary=texts, column_encoding=numbers
        )

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(_plain_texts(table))

    def close(self) -> None:
        try:
            self._writer.close()
        finally:
            self._file.close()


class CsvWriter:
    """Nested values become JSON texts, bytes base64."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._file = path.open("wb")
        self._writer: pacsv.CSVWriter | None = None
        self._schema = schema

    def write(self, table: pa.Table) -> None:
        flat = _flat(_plain_texts(table))
        if self._writer is None:
            self._writer = pacsv.CSVWriter(self._file, flat.schema)
        self._writer.write_table(flat)

    def close(self) -> None:
        try:
            if self._writer is None:
                self._writer = pacsv.CSVWriter(self._file, _flat(_without_marks(self._schema).empty_table()).schema)
            self._writer.close()
        finally:
            self._file.close()


class JsonWriter:
    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._file = path.open("wb")
        self._json = [field.name for field in schema if field.metadata == JSON_TEXT]

    def write(self, table: pa.Table) -> None:
        for row in table.to_pylist():
            for name in self._json:
                row[name] = orjson.Fragment(row[name]) if row[name] is not None else None
            self._file.write(to_json(row) + b"\n")

    def close(self) -> None:
        self._file.close()


WRITERS: Mapping[SinkFormat, Any] = {"parquet": ParquetWriter, "csv": CsvWriter, "jsonl": JsonWriter}


def to_json(value: Any) -> bytes:
    return orjson.dumps(value, default=_json_default)


def _json_default(value: Any) -> str:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


def _without_marks(schema: pa.Schema) -> pa.Schema:
    return pa.schema([field.with_metadata(None) for field in schema])


def _plain_texts(table: pa.Table) -> pa.Table:
    """Columns of JSON texts: what is a text becomes itself, anything else stays JSON."""
    columns = [
        pa.array([_unquoted(text) for text in column.to_pylist()], pa.string())
        if field.metadata == JSON_TEXT
        else column
        for field, column in zip(table.schema, table.columns, strict=True)
    ]
    return pa.table(columns, schema=_without_marks(table.schema))


def _unquoted(text: str | None) -> Any:
    return orjson.loads(text) if text is not None and text.startswith('"') else text


def _flat(table: pa.Table) -> pa.Table:
    columns = []
    for column in table.columns:
        kind = column.type
        if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind):
            texts = [None if value is None else _cell(value) for value in column.to_pylist()]
            columns.append(pa.array(texts, pa.string()))
        else:
            columns.append(column)
    return pa.table(columns, names=table.schema.names)


def _cell(value: Any) -> str:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else to_json(value).decode()
