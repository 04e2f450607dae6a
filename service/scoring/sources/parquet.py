"""Parquet: a shard is whole row groups, or a part of one that is large.

Only columns that the job reads are read and hashed, page by page, so memory does not grow with the row group's size. A
row with a text that is not UTF-8 is one fault.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from xxhash import xxh3_128

from service.scoring.input.files import InputFile, file_system
from service.scoring.input.nested import field_of, pick
from service.scoring.input.rows import CHUNK_BYTES, CHUNK_ROWS, SHARD_BYTES, ReadSpec, Rows, Span
from service.scoring.job import ScoringError, TextOptions
from service.scoring.sources import int96

# Small enough for the cache of a core.
BUFFER_BYTES = 1 << 18
# A column of a batch that is no column of the file: whether the row loses nanoseconds.
LOST = "\0lost"


class ParquetSource:
    def __init__(self, file: InputFile, spec: ReadSpec) -> None:
        self._file, self._spec = file, spec
        self._parquet = _open(file)
        self._int96 = [path for path in int96.int96_leaves(self._parquet) if _holds(path, spec.columns)]
        self._nano = _open(file, int96_unit="ns") if self._int96 else None
        self._has_paths = not set(spec.columns) <= set(self._parquet.schema_arrow.names)
        self._batches: Iterator[pa.RecordBatch] = iter(())
        # The row groups being read, the rows of them that were read, and the rest of a batch that spans share.
        self._groups = (-1, -1)
        self._rows_read = 0
        self._rest: pa.RecordBatch | None = None

    @staticmethod
    def schema(file: InputFile, text_options: TextOptions) -> pa.Schema:  # noqa: ARG004
        with _open(file) as parquet:
            return unique_names(file, parquet.schema_arrow)

    def spans(self, *, shard_rows: int) -> Iterator[Span]:
        system, path = file_system(self._file.uri)
        with system.open_input_file(path) as raw:
            groups = [self._group(i) for i in range(self._parquet.metadata.num_row_groups)]
            schema = self._parquet.schema_arrow
            names = [name for name in schema.names if name in self._spec.columns]
            names += [name for name in self._spec.columns if name not in names]
            layout = json.dumps([str(field_of(schema, name)) for name in names]).encode()
            first_row = i = 0
            while i < len(groups):
                start, taken, size = i, 0, 0
                rows = max(1, min(shard_rows, SHARD_BYTES * groups[i].rows // max(groups[i].size, 1)))
                if groups[i].rows > rows:
                    digest = groups[i].digest(raw, layout)
                    for skip in range(0, groups[i].rows, rows):
                        count = min(rows, groups[i].rows - skip)
                        yield Span(first_row=first_row, rows=count, start=i, stop=i + 1, skip=skip, digest=digest)
                        first_row += count
                    i += 1
                    continue
                digests = xxh3_128()
                while i < len(groups) and taken + groups[i].rows <= rows and size <= SHARD_BYTES:
                    taken, size = taken + groups[i].rows, size + groups[i].size
                    digests.update(groups[i].digest(raw, layout).encode())
                    i += 1
                if taken:
                    yield Span(first_row=first_row, rows=taken, start=start, stop=i, digest=digests.hexdigest())
                first_row += taken

    def read(self, span: Span) -> Iterator[Rows]:
        if self._groups != (span.start, span.stop) or self._rows_read > span.skip:
            numbers = list(range(span.start, span.stop))
            groups = [self._group(i) for i in numbers]
            rows, size = sum(group.rows for group in groups), sum(group.size for group in groups)
            self._batches = self._read_groups(numbers, max(1, min(CHUNK_ROWS, CHUNK_BYTES * rows // max(size, 1))))
            self._groups, self._rest, self._rows_read = (span.start, span.stop), None, 0
        number, left = span.first_row - (span.skip - self._rows_read), span.rows
        while left:
            batch = self._rest if self._rest is not None else next(self._batches)
            self._rest = None
            skipped = min(max(span.first_row - number, 0), batch.num_rows)
            taken = min(left, batch.num_rows - skipped)
            if skipped + taken < batch.num_rows:
                self._rest = batch.slice(skipped + taken)
            number, left = number + skipped + taken, left - taken
            self._rows_read += skipped + taken
            if taken:
                yield self._rows(range(number - taken, number), batch.slice(skipped, taken))

    def close(self) -> None:
        self._parquet.close()
        if self._nano is not None:
            self._nano.close()

    def _read_groups(self, groups: list[int], batch_rows: int) -> Iterator[pa.RecordBatch]:
        options = {"batch_size": batch_rows, "row_groups": groups, "use_threads": False}
        batches = self._parquet.iter_batches(columns=list(self._spec.columns), **options)
        if self._nano is None:
            yield from batches
            return
        losses = int96.rows_with_nanoseconds(self._parquet, self._nano, self._int96, **options)
        for batch, lost in zip(batches, losses, strict=True):
            is_lost = np.zeros(batch.num_rows, np.bool_)
            is_lost[lost] = True
            yield batch.append_column(LOST, pa.array(is_lost))

    def _rows(self, numbers: Sequence[int], batch: pa.RecordBatch) -> Rows:
        lost = list[int]()
        if self._nano is not None:
            lost = [int(i) for i in np.flatnonzero(batch.column(LOST).to_numpy(zero_copy_only=False))]
            batch = batch.drop_columns([LOST])
        rows = valid_rows(numbers, pick(batch, self._spec.columns) if self._has_paths else batch)
        return replace(rows, faults={**dict.fromkeys(lost, int96.LOST), **rows.faults}) if lost else rows

    def _group(self, number: int) -> "_Group":
        return _Group(self._parquet.metadata.row_group(number), self._spec)


class _Group:
    """The columns of a row group that the job reads: rows, uncompressed bytes, and where the stored bytes are."""

    def __init__(self, metadata: Any, spec: ReadSpec) -> None:
        self.rows: int = metadata.num_rows
        every = (metadata.column(i) for i in range(metadata.num_columns))
        columns = [c for c in every if _holds(c.path_in_schema, spec.columns)]
        self.size = sum(column.total_uncompressed_size for column in columns)
        self._ranges = [(c.dictionary_page_offset or c.data_page_offset, c.total_compressed_size) for c in columns]

    def digest(self, raw: Any, layout: bytes) -> str:
        group_hash, buffer = xxh3_128(layout), memoryview(bytearray(BUFFER_BYTES))
        for start, stored in self._ranges:
            raw.seek(start)
            left = stored
            while left:
                size = raw.readinto(buffer[: min(left, BUFFER_BYTES)])
                if not size:
                    raise EOFError(f"ends {left} bytes before a column does")
                group_hash.update(buffer[:size])
                left -= size
        return group_hash.hexdigest()


def _holds(path: str, names: Sequence[str]) -> bool:
    """Whether a leaf of the file is one of these columns, or inside of one."""
    return any(path == name or path.startswith(f"{name}.") for name in names)


def unique_names(file: InputFile, schema: pa.Schema) -> pa.Schema:
    """The schema of a file. Raises ScoringError if it names a column twice."""
    repeated = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if repeated:
        raise ScoringError(
            f"{file.name}: has more than one column {', '.join(map(repr, repeated))}: rename or drop one"
        )
    return schema.remove_metadata()


def valid_rows(numbers: Sequence[int], batch: pa.RecordBatch) -> Rows:
    """The rows of a batch; those with a text that is not UTF-8 are faults, and the values of that column are null."""
    columns, faults = dict[str, Any](), dict[int, str]()
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        columns[name] = column
        invalid = _invalid(column)
        if invalid:
            faults |= dict.fromkeys(invalid, f"column {name!r}: a text that is not UTF-8")
            columns[name] = column.take(pa.array([None if i in invalid else i for i in range(len(column))], pa.int64()))
    return Rows(numbers=numbers, columns=columns, faults=faults)


def _invalid(column: pa.Array) -> set[int]:
    """The rows whose values do not conform to the type."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        if len(column) == 1:
            return {0}
        half = len(column) // 2
        return _invalid(column.slice(0, half)) | {half + i for i in _invalid(column.slice(half))}
    return set()


def _open(file: InputFile, int96_unit: str = int96.UNIT) -> pq.ParquetFile:
    system, path = file_system(file.uri)
    return pq.ParquetFile(
        path, filesystem=system, pre_buffer=False, buffer_size=BUFFER_BYTES, coerce_int96_timestamp_unit=int96_unit
    )
