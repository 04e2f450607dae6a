"""Arrow IPC files and streams (Feather, `save_to_disk` of Hugging Face), and ORC files.

Both hold record batches one after the other. Invariant: a shard is some whole batches, or a part of one, so a row is
decoded once however long the shards are. A batch is in memory as a whole.
"""

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from pyarrow import orc
from xxhash import xxh3_128

from service.scoring.input.files import InputFile, file_system
from service.scoring.input.nested import field_of, outer_names, pick
from service.scoring.input.rows import CHUNK_BYTES, CHUNK_ROWS, SHARD_BYTES, ReadSpec, Rows, Span
from service.scoring.job import TextOptions
from service.scoring.sources.parquet import unique_names, valid_rows

FILE_MAGIC = b"ARROW1"


class BatchSource:
    """A file of record batches. A subclass opens it in `_open` and reads batch `number` in `_read_batch`."""

    def __init__(self, file: InputFile, spec: ReadSpec) -> None:
        self._file, self._spec = file, spec
        self._number, self._batch = -1, None  # the batch that was read last
        self._schema: pa.Schema = unique_names(file, self._open())

    @classmethod
    def schema(cls, file: InputFile, text_options: TextOptions) -> pa.Schema:  # noqa: ARG003
        source = cls(file, ReadSpec(columns=()))
        try:
            return source._schema
        finally:
            source.close()

    def spans(self, *, shard_rows: int) -> Iterator[Span]:
        layout = json.dumps([str(field_of(self._schema, name)) for name in self._spec.columns]).encode()
        first_row, start, rows, size, digest = 0, 0, 0, 0, xxh3_128(layout)
        number = 0
        while (batch := self._read(number)) is not None:
            limit = max(1, min(shard_rows, SHARD_BYTES * batch.num_rows // max(batch.nbytes, 1)))
            if rows and (rows + batch.num_rows > limit or size + batch.nbytes > SHARD_BYTES):
                yield Span(first_row=first_row, rows=rows, start=start, stop=number, digest=digest.hexdigest())
                first_row, start, rows, size, digest = first_row + rows, number, 0, 0, xxh3_128(layout)
            digest.update(_content(batch))
            number += 1
            if batch.num_rows <= limit:
                rows, size = rows + batch.num_rows, size + batch.nbytes
                continue
            whole = digest.hexdigest()
            for skip in range(0, batch.num_rows, limit):
                count = min(limit, batch.num_rows - skip)
                yield Span(first_row=first_row, rows=count, start=start, stop=number, skip=skip, digest=whole)
                first_row += count
            start, digest = number, xxh3_128(layout)
        if rows:
            yield Span(first_row=first_row, rows=rows, start=start, stop=number, digest=digest.hexdigest())

    def read(self, span: Span) -> Iterator[Rows]:
        number, left, skip = span.first_row, span.rows, span.skip
        for index in range(span.start, span.stop):
            batch = self._read(index)
            if batch is None:
                raise EOFError(f"ends before record batch {index}")
            part = batch.slice(skip, left)
            skip = max(skip - batch.num_rows, 0)
            step = max(1, min(CHUNK_ROWS, CHUNK_BYTES * part.num_rows // max(part.nbytes, 1)))
            for begin in range(0, part.num_rows, step):
                chunk = part.slice(begin, step)
                yield valid_rows(range(number, number + chunk.num_rows), chunk)
                number, left = number + chunk.num_rows, left - chunk.num_rows
        if left:
            raise EOFError(f"ends {left} rows too early")

    def close(self) -> None:
        self._batch = None

    def _read(self, number: int) -> pa.RecordBatch | None:
        """The columns to read of a batch; None behind the last one. Consecutive calls for one batch decode it once."""
        if number != self._number:
            batch = self._read_batch(number)
            self._batch = None if batch is None else _without_views(pick(batch, self._spec.columns))
            self._number = number
        return self._batch

    def _open(self) -> pa.Schema:
        raise NotImplementedError

    def _read_batch(self, number: int) -> pa.RecordBatch | None:
        raise NotImplementedError


class ArrowSource(BatchSource):
    """Arrow IPC, the file format with random access or the stream format; the first bytes tell which."""

    def _open(self) -> pa.Schema:
        system, path = file_system(self._file.uri)
        self._raw: Any = system.open_input_file(path)
        self._is_file = self._raw.read(len(FILE_MAGIC)) == FILE_MAGIC
        self._raw.seek(0)
        self._reader: Any = pa.ipc.open_file(self._raw) if self._is_file else pa.ipc.open_stream(self._raw)
        self._next = 0  # batch of a stream
        return self._reader.schema

    def _read_batch(self, number: int) -> pa.RecordBatch | None:
        if self._is_file:
            if number >= self._reader.num_record_batches:
                return None
            return self._reader.get_batch(number)
        if number < self._next:
            self._raw.seek(0)
            self._reader, self._next = pa.ipc.open_stream(self._raw), 0
        batch = None
        while self._next <= number:
            batch = next(self._reader, None)
            if batch is None:
                return None
            self._next += 1
        assert batch is not None
        return batch

    def close(self) -> None:
        super().close()
        self._raw.close()


class OrcSource(BatchSource):
    """ORC; its batches are stripes."""

    def _open(self) -> pa.Schema:
        system, path = file_system(self._file.uri)
        self._raw: Any = system.open_input_file(path)
        self._orc: Any = orc.ORCFile(self._raw)
        return self._orc.schema

    def _read_batch(self, number: int) -> pa.RecordBatch | None:
        if number >= self._orc.nstripes:
            return None
        return self._orc.read_stripe(number, columns=outer_names(self._schema, self._spec.columns))

    def close(self) -> None:
        super().close()
        self._raw.close()


def _without_views(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Replace string and binary views, which polars writes and few functions of Arrow take, by strings and bytes."""
    return pa.RecordBatch.from_arrays([_without_view(column) for column in batch.columns], names=batch.schema.names)


def _without_view(column: pa.Array) -> pa.Array:
    kind = column.type
    if pa.types.is_dictionary(kind):
        values = _without_view(column.dictionary)
        return column if values is column.dictionary else pa.DictionaryArray.from_arrays(column.indices, values)
    if pa.types.is_string_view(kind):
        return column.cast(pa.large_string())
    return column.cast(pa.large_binary()) if pa.types.is_binary_view(kind) else column


def _content(batch: pa.RecordBatch) -> pa.Buffer:
    """The bytes of a batch, those of its dictionaries included."""
    columns = [
        column.dictionary_decode() if pa.types.is_dictionary(column.type) else column for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names).serialize()
