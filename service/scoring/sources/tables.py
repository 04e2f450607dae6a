"""A data file of a Delta or Iceberg table: its live rows, with the columns of the table.

Rows are numbered without those that are deleted. A column that the file does not have, because it was added to the
table later, is null. The rows are read as a stream of batches from the start of the file on; a worker that continues
where it stopped does not read them again.
"""

import json
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from xxhash import xxh3_128

from service.scoring.input.delta import DeltaFile, DeltaSnapshot, open_delta
from service.scoring.input.files import InputFile, file_system
from service.scoring.input.iceberg import open_iceberg
from service.scoring.input.nested import outer_names, pick
from service.scoring.input.rows import CHUNK_BYTES, CHUNK_ROWS, SHARD_BYTES, ReadSpec, Rows, Span
from service.scoring.job import ScoringError, TextOptions
from service.scoring.sources import int96
from service.scoring.sources.parquet import BUFFER_BYTES, unique_names, valid_rows


class TableSource:
    """The base of the sources that read tables; a subclass yields the batches of a file."""

    def __init__(self, file: InputFile, spec: ReadSpec) -> None:
        self._file, self._spec = file, spec
        table = self.schema(file, spec.text_options)
        # A batch without a column has no number of rows.
        self._schema = pa.schema([table.field(name) for name in outer_names(table, spec.columns) or table.names[:1]])
        self._columns = spec.columns or self._schema.names
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._rest: pa.RecordBatch | None = None
        # The number of the next row; beyond every row until reading begins.
        self._next_row: float = np.inf

    @staticmethod
    def schema(file: InputFile, text_options: TextOptions) -> pa.Schema:
        raise NotImplementedError

    def _live_batches(self) -> Iterator[pa.RecordBatch]:
        raise NotImplementedError

    def spans(self, *, shard_rows: int) -> Iterator[Span]:
        layout = json.dumps([str(field) for field in self._schema]).encode()
        first_row = rows = size = 0
        parts = list[pa.RecordBatch]()

        def span() -> Span:
            digest = xxh3_128(layout)
            # A copy in one batch has these rows alone in its buffers, however they were divided.
            copy = pa.Table.from_batches(parts, self._schema).take(pa.array(range(rows), pa.int64())).combine_chunks()
            for batch in copy.to_batches():
                digest.update(batch.serialize())
            stop = first_row + rows
            return Span(first_row=first_row, rows=rows, start=first_row, stop=stop, digest=digest.hexdigest())

        for batch in self._live_batches():
            done = 0
            while done < batch.num_rows:
                row_bytes = max(batch.nbytes // batch.num_rows, 1)
                count = min(shard_rows - rows, max((SHARD_BYTES - size) // row_bytes, 1), batch.num_rows - done)
                parts.append(batch.slice(done, count))
                done, rows, size = done + count, rows + count, size + count * row_bytes
                if rows == shard_rows or size + row_bytes > SHARD_BYTES:
                    yield span()
                    first_row, rows, size, parts = first_row + rows, 0, 0, []
        if rows:
            yield span()

    def read(self, span: Span) -> Iterator[Rows]:
        if self._next_row > span.start:
            self._batches, self._rest, self._next_row = self._live_batches(), None, 0
        number, left = span.first_row, span.rows
        while left:
            batch = self._rest if self._rest is not None else next(self._batches, None)
            if batch is None:
                raise EOFError(f"has {left} rows fewer than when it was planned")
            skipped = min(max(number - int(self._next_row), 0), batch.num_rows)
            row_bytes = max(batch.nbytes // max(batch.num_rows, 1), 1)
            count = min(left, batch.num_rows - skipped, CHUNK_ROWS, max(CHUNK_BYTES // row_bytes, 1))
            self._next_row += skipped + count
            self._rest = batch.slice(skipped + count) if skipped + count < batch.num_rows else None
            if count:
                yield valid_rows(range(number, number + count), pick(batch.slice(skipped, count), self._columns))
            number, left = number + count, left - count

    def close(self) -> None:
        self._batches = iter(())


class DeltaSource(TableSource):
    @staticmethod
    def schema(file: InputFile, text_options: TextOptions) -> pa.Schema:  # noqa: ARG004
        return unique_names(file, _delta(file)[0].schema)

    def _live_batches(self) -> Iterator[pa.RecordBatch]:
        snapshot, data_file = _delta(self._file)
        deleted = snapshot.deleted.get(data_file.uri, np.empty(0, np.int64))
        stored = {name: snapshot.physical[name] for name in self._schema.names if name not in snapshot.partition_names}
        system, path = file_system(self._file.uri)
        with pq.ParquetFile(
            path, filesystem=system, pre_buffer=False, buffer_size=BUFFER_BYTES, coerce_int96_timestamp_unit=int96.UNIT
        ) as parquet:
            present = [name for name in stored.values() if name in parquet.schema_arrow.names]
            _check_nested(self._file, snapshot, self._schema)
            groups = [parquet.metadata.row_group(i) for i in range(parquet.num_row_groups)]
            widest = max((group.total_byte_size // max(group.num_rows, 1) for group in groups), default=1)
            batch_rows = max(1, min(CHUNK_ROWS, CHUNK_BYTES // max(widest, 1)))
            first = 0
            # Without a column to read, the metadata still counts the rows.
            for batch in parquet.iter_batches(batch_size=batch_rows, columns=present, use_threads=False):
                rows = np.arange(first, first + batch.num_rows)
                first += batch.num_rows
                live = ~np.isin(rows, deleted)
                taken = batch if live.all() else batch.filter(pa.array(live))
                if taken.num_rows:
                    yield self._with_table_columns(taken, stored, data_file)

    def _with_table_columns(
        self, batch: pa.RecordBatch, stored: dict[str, str], data_file: DeltaFile
    ) -> pa.RecordBatch:
        columns = []
        for field in self._schema:
            physical = stored.get(field.name)
            if physical is None:
                value = data_file.partition.get(field.name, pa.scalar(None))
                columns.append(pa.repeat(value.cast(field.type), len(batch)))
            elif physical in batch.schema.names:
                columns.append(batch.column(physical).cast(field.type))
            else:
                columns.append(pa.nulls(len(batch), field.type))
        return pa.record_batch(columns, schema=self._schema)


class IcebergSource(TableSource):
    @staticmethod
    def schema(file: InputFile, text_options: TextOptions) -> pa.Schema:  # noqa: ARG004
        return unique_names(file, open_iceberg(*_table(file)).schema)

    def _live_batches(self) -> Iterator[pa.RecordBatch]:
        from pyiceberg.expressions import AlwaysTrue  # noqa: PLC0415 - an extra
        from pyiceberg.io.pyarrow import ArrowScan, _read_all_delete_files  # noqa: PLC0415

        snapshot = open_iceberg(*_table(self._file))
        task, table = snapshot.tasks[self._file.uri], snapshot.table
        projection = snapshot.projection.select(*self._schema.names) if self._schema.names else snapshot.projection
        scan = ArrowScan(table.metadata, table.io, projection, AlwaysTrue())
        deletes = _read_all_delete_files(table.io, [task])
        # The public method reads a whole file before it yields the first batch.
        for batch in scan._record_batches_from_scan_tasks_and_deletes([task], deletes):
            if batch.num_rows:
                yield pa.record_batch(
                    [batch.column(field.name).cast(field.type) for field in self._schema], schema=self._schema
                )


def _table(file: InputFile) -> tuple[str, int]:
    root, _, version = file.table.rpartition("?version=")
    return root, int(version)


def _delta(file: InputFile) -> tuple[DeltaSnapshot, DeltaFile]:
    snapshot = open_delta(*_table(file))
    found = next((data_file for data_file in snapshot.files if data_file.uri == file.uri), None)
    if found is None:
        raise ScoringError(f"{file.name}: no longer part of {file.table}")
    return snapshot, found


def _check_nested(file: InputFile, snapshot: DeltaSnapshot, schema: pa.Schema) -> None:
    """Nested columns of a table with mapped names have other names inside, too."""
    is_mapped = any(name != physical for name, physical in snapshot.physical.items())
    nested = [field.name for field in schema if pa.types.is_nested(field.type)]
    if is_mapped and nested:
        raise ScoringError(
            f"{file.name}: the nested column {nested[0]!r} of a Delta table with column mapping is not supported: "
            "write its rows to Parquet first"
        )
