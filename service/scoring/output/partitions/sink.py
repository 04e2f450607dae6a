"""Writes the rows of a shard to one file for each partition: `predictions/COLUMN=value/part-FFFFF-NNNNNN.*`.

Invariant: a row is in the folder of its values, without those columns; a file's bytes depend on its rows alone.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa

from service.scoring.job import Job, ScoringError
from service.scoring.output.ledger import Ledger
from service.scoring.output.partitions.values import folder_name, value_texts
from service.scoring.output.sinks import Sink
from service.scoring.plan import Shard

# Each is an open file.
MAX_PARTITIONS = 256
Opener = Callable[[IO[bytes], pa.Schema], Any]


def open_sink(job: Job, ledger: Ledger, shard: Shard) -> Sink:
    """The sink of a shard's predictions."""
    path = ledger.work_path(shard, job.sink)
    if not job.partition_by:
        return Sink(path, job.sink, escape_formulas=job.escape_formulas)
    return PartitionedSink(path, job, lambda number: ledger.work_path(shard, f"{number:03d}.{job.sink}"), shard.title)


class PartitionedSink(Sink):
    """`work_path` gives the path of a file by its number; `title` names the shard in errors."""

    def __init__(self, path: Path, job: Job, work_path: Callable[[int], Path], title: str) -> None:
        super().__init__(path, job.sink, escape_formulas=job.escape_formulas)
        self._job, self._work_path, self._title = job, work_path, title
        self._paths: dict[str, Path] = {}

    def parts(self, name: str) -> dict[str, Path]:
        return {f"predictions/{folder}/{name}": path for folder, path in self._paths.items()}

    def _open(self, schema: pa.Schema) -> list[Any]:
        return [_PartitionWriter(partition_columns(self._job, schema), self._open_part)]

    def _open_part(self, folder: str, schema: pa.Schema) -> list[Any]:
        if len(self._paths) == MAX_PARTITIONS:
            columns = ", ".join(self._job.partition_by)
            raise ScoringError(
                f"{self._title}: more than {MAX_PARTITIONS} partitions by {columns}: choose columns with fewer values, "
                f"or --shard-rows {MAX_PARTITIONS}"
            )
        self._paths[folder] = self._work_path(len(self._paths))
        file = self._paths[folder].open("wb")
        return [self._writer(file, schema), file]


class _PartitionWriter:
    """Divides tables by their `columns`; `open_part(folder, schema)` gives a writer and its file."""

    def __init__(self, columns: Mapping[str, int], open_part: Callable[[str, pa.Schema], list[Any]]) -> None:
        self._columns, self._open_part = columns, open_part
        self._opened: dict[str, list[Any]] = {}

    def write(self, table: pa.Table) -> None:
        folders = self._folders(table)
        names, codes = np.unique(folders, return_inverse=True)
        order = np.argsort(codes, kind="stable")
        bounds = np.searchsorted(codes[order], np.arange(len(names) + 1))
        rest = table.drop_columns(list(self._columns))
        for i, name in enumerate(names.tolist()):
            part = rest.take(pa.array(order[bounds[i] : bounds[i + 1]]))
            if name not in self._opened:
                self._opened[name] = self._open_part(name, part.schema)
            self._opened[name][0].write(part)

    def close(self) -> None:
        for opened in self._opened.values():
            for item in opened:
                item.close()
        self._opened = {}

    def _folders(self, table: pa.Table) -> list[str]:
        """The path of the folder of each row."""
        levels = []
        for name, index in self._columns.items():
            texts = value_texts(table.column(index).combine_chunks(), table.schema.field(index))
            known = {text: folder_name(name, text) for text in set(texts)}
            levels.append([known[text] for text in texts])
        return ["/".join(parts) for parts in zip(*levels, strict=True)]


def partition_types(job: Job) -> tuple[pa.DataType, ...]:
    """The types of the partition columns, in order."""
    return tuple(job.copied.field(name).type if name in job.copied.names else pa.string() for name in job.partition_by)


def partition_columns(job: Job, schema: pa.Schema) -> dict[str, int]:
    """The partition columns by their names in the output, and their places in its tables."""
    # The copied columns follow `file` and `row`.
    places = [
        2 + job.copied.names.index(name) if name in job.copied.names else schema.names.index(name)
        for name in job.partition_by
    ]
    return {schema.names[place]: place for place in places}
