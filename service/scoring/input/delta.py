"""One version of a Delta table: its live data files, the rows of them that are deleted, and its columns.

Needs the package `deltalake` (dependency group `tables`). A table that uses a feature that this reader does not know is
refused by the name of the feature.
"""

import functools
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from service.scoring.job import ScoringError

# Features that change how data files are read, and that are honoured or do not concern them.
FEATURES = frozenset(
    {"columnMapping", "deletionVectors", "timestampNtz", "typeWidening", "typeWidening-preview", "v2Checkpoint"}
    | {"vacuumProtocolCheck", "variantType", "variantType-preview", "variantShredding-preview"}
)


@dataclass(frozen=True, kw_only=True)
class DeltaFile:
    """A live data file: its place, the values of the partition columns, and its size."""

    uri: str
    path: str
    partition: dict[str, pa.Scalar]
    size: int


@dataclass(frozen=True, kw_only=True)
class DeltaSnapshot:
    """`physical` maps columns to their names in the data files; `deleted` holds row numbers by `DeltaFile.uri`."""

    version: int
    schema: pa.Schema
    physical: dict[str, str]
    files: tuple[DeltaFile, ...]
    deleted: dict[str, npt.NDArray[np.int64]]

    @property
    def partition_names(self) -> frozenset[str]:
        """The columns whose values the log holds instead of the data files."""
        return frozenset(name for file in self.files for name in file.partition)


@functools.lru_cache(maxsize=4)
def open_delta(root: str, version: int | None) -> DeltaSnapshot:
    """Read the log of a table, up to a version or to its end. Raises ScoringError."""
    try:
        from deltalake import DeltaTable  # noqa: PLC0415 - an extra
        from deltalake.exceptions import DeltaError  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ScoringError(f"--input {root}: a Delta table needs the dependency group `tables`: {error}") from error
    try:
        table = DeltaTable(root, version=version)
        unknown = set(table.protocol().reader_features or ()) - FEATURES
        if unknown:
            raise ScoringError(
                f"--input {root}: a Delta table with the feature {', '.join(sorted(unknown))}, which is not supported: "
                "write its rows to Parquet first"
            )
        adds = pa.table(table.get_add_actions()).to_pylist()
        partitions = _partition_values(pa.table(table.get_add_actions()))
        vectors = pa.RecordBatchReader.from_stream(table.deletion_vectors())
        deleted = {uri: keep for batch in vectors for uri, keep in _deleted_rows(batch)}
        schema, fields = pa.schema(table.schema().to_arrow()), json.loads(table.schema().to_json())["fields"]
        found_version = table.version()
    except (DeltaError, OSError, ValueError, OverflowError) as error:
        asked = "" if version is None else f" has no version {version}:"
        raise ScoringError(f"--input {root}: the Delta table{asked} cannot be read: {error}") from error
    base = table.table_uri.rstrip("/") + "/"
    names = {
        field["name"]: field["metadata"].get("delta.columnMapping.physicalName", field["name"]) for field in fields
    }
    logical = {physical: name for name, physical in names.items()}
    files = tuple(
        DeltaFile(
            uri=_place(base, add["path"]),
            path=unquote(add["path"]),
            partition={logical.get(name, name): value for name, value in values.items()},
            size=add["size_bytes"],
        )
        for add, values in sorted(zip(adds, partitions, strict=True), key=lambda pair: pair[0]["path"])
    )
    deleted = {_place(base, uri.removeprefix(base)): rows for uri, rows in deleted.items()}
    if not deleted.keys() <= {file.uri for file in files}:
        raise ScoringError(f"--input {root}: a deletion vector of the Delta table names a file that the table lacks")
    return DeltaSnapshot(version=found_version, schema=schema, physical=names, files=files, deleted=deleted)


def _place(base: str, path: str) -> str:
    """The place of a data file, whose path in the log is encoded as in a URI; a local path without a scheme."""
    place = unquote(path) if "://" in path else base.removesuffix("/") + "/" + unquote(path)
    return place.removeprefix("file://")


def _partition_values(adds: pa.Table) -> list[dict[str, pa.Scalar]]:
    if "partition" not in adds.schema.names:
        return [{} for _ in range(adds.num_rows)]
    column = adds.column("partition").combine_chunks()
    names = [field.name for field in column.type]
    return [{name: column[i][name] for name in names} for i in range(len(column))]


def _deleted_rows(batch: Any) -> list[tuple[str, npt.NDArray[np.int64]]]:
    batch = pa.record_batch(batch)
    return [
        (uri.as_py(), np.flatnonzero(~np.asarray(keep.values.to_numpy(zero_copy_only=False), np.bool_)))
        for uri, keep in zip(batch.column("filepath"), batch.column("selection_vector"), strict=True)
    ]
