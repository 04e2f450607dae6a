"""Parquet: shards are whole row groups, or parts of one that is large.

Only the columns that are wanted are read and hashed. Pages are read as they are needed, so memory does not grow with
the size of a row group.
"""

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from xxhash import xxh3_128

from service.scoring.files import InputFile, file_system
from service.scoring.rows import CHUNK_BYTES, CHUNK_ROWS, SHARD_BYTES, Rows, Span, Want, tapered

BUFFER_BYTES = 1 << 18  # what is read at once stays in the cache of a core


class ParquetSource:
    def columns(self, file: InputFile, *, header: bool) -> tuple[str, ...]:  # noqa: ARG002
        with _open(file) as parquet:
            return tuple(parquet.schema_arrow.names)

    def spans(self, file: InputFile, want: Want, *, shard_rows: int, last: bool) -> Iterator[Span]:
        system, path = file_system(file.uri)
        with _open(file) as parquet, system.open_input_file(path) as raw:
            groups = [_Group(parquet.metadata.row_group(i), want) for i in range(parquet.metadata.num_row_groups)]
            layout = json.dumps([str(field) for field in parquet.schema_arrow if field.name in want.columns]).encode()
            total = sum(group.rows for group in groups)

            def room(group: _Group) -> int:
                most = tapered(shard_rows, total - first_row) if last else shard_rows
                return max(1, min(most, SHARD_BYTES * group.rows // max(group.size, 1)))

            first_row = i = 0
            while i < len(groups):
                start, taken, size, rows = i, 0, 0, room(groups[i])
                if groups[i].rows > rows:
                    digest, i = groups[i].digest(raw, layout), i + 1
                    while taken < groups[start].rows:
                        rows = min(room(groups[start]), groups[start].rows - taken)
                        yield Span(first_row=first_row, rows=rows, start=start, stop=i, skip=taken, digest=digest)
                        taken, first_row = taken + rows, first_row + rows
                    continue
                digests = xxh3_128()
                while i < len(groups) and taken + groups[i].rows <= rows and size <= SHARD_BYTES:
                    taken, size = taken + groups[i].rows, size + groups[i].size
                    digests.update(groups[i].digest(raw, layout).encode())
                    i += 1
                if taken:
                    yield Span(first_row=first_row, rows=taken, start=start, stop=i, digest=digests.hexdigest())
                first_row += taken

    def open(self, file: InputFile, want: Want) -> "ParquetReader":
        return ParquetReader(file, want)


class ParquetReader:
    def __init__(self, file: InputFile, want: Want) -> None:
        self._parquet = _open(file)
        self._columns = list(want.columns)
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._groups = (-1, -1)
        self._rest: pa.RecordBatch | None = None
        self._at = 0  # rows of these groups that were read

    def read(self, span: Span) -> Iterator[Rows]:
        if self._groups != (span.start, span.stop) or self._at > span.skip:
            self._begin(span)
        number, left = span.first_row - (span.skip - self._at), span.rows
        while left:
            batch = self._rest if self._rest is not None else next(self._batches)
            self._rest = None
            skipped = min(max(span.first_row - number, 0), batch.num_rows)
            taken = min(left, batch.num_rows - skipped)
            if skipped + taken < batch.num_rows:
                self._rest = batch.slice(skipped + taken)
            number, left, self._at = number + skipped + taken, left - taken, self._at + skipped + taken
            if taken:
                part = batch.slice(skipped, taken)
                columns = dict(zip(part.schema.names, part.columns, strict=True))
                yield Rows(numbers=range(number - taken, number), columns=columns)

    def close(self) -> None:
        self._parquet.close()

    def _begin(self, span: Span) -> None:
        groups = list(range(span.start, span.stop))
        metadata = self._parquet.metadata
        rows = sum(metadata.row_group(i).num_rows for i in groups)
        size = sum(_Group(metadata.row_group(i), Want(columns=tuple(self._columns))).size for i in groups)
        batch_size = max(1, min(CHUNK_ROWS, CHUNK_BYTES * rows // max(size, 1)))
        self._batches = self._parquet.iter_batches(
            batch_size=batch_size, row_groups=groups, columns=self._columns, use_threads=False
        )
        self._groups, self._rest, self._at = (span.start, span.stop), None, 0


class _Group:
    """The wanted part of a row group: how many rows and uncompressed bytes, and where the stored bytes are."""

    def __init__(self, metadata: Any, want: Want) -> None:
        self.rows: int = metadata.num_rows
        wanted = [
            column
            for column in (metadata.column(i) for i in range(metadata.num_columns))
            if column.path_in_schema.split(".")[0] in want.columns or column.path_in_schema in want.columns
        ]
        self.size = sum(column.total_uncompressed_size for column in wanted)
        self._ranges = [
            (column.dictionary_page_offset or column.data_page_offset, column.total_compressed_size)
            for column in wanted
        ]

    def digest(self, raw: Any, layout: bytes) -> str:
        found, buffer = xxh3_128(layout), memoryview(bytearray(BUFFER_BYTES))
        for start, stored in self._ranges:
            raw.seek(start)
            left = stored
            while left:
                size = raw.readinto(buffer[: min(left, BUFFER_BYTES)])
                if not size:
                    raise EOFError(f"ends {left} bytes before a column does")
                found.update(buffer[:size])
                left -= size
        return found.hexdigest()


def _open(file: InputFile) -> pq.ParquetFile:
    system, path = file_system(file.uri)
    return pq.ParquetFile(path, filesystem=system, pre_buffer=False, buffer_size=BUFFER_BYTES)
