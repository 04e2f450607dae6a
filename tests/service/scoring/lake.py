"""Delta and Iceberg tables whose live rows are fewer than the rows of their files."""

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"


def write_delta(path: Path, columns: Mapping[str, Any], **options: Any) -> Path:
    from deltalake import write_deltalake

    write_deltalake(path, pa.table(dict(columns)), **options)
    return path


def log_of(table: Path, version: int) -> Path:
    return table / "_delta_log" / f"{version:020d}.json"


def actions(table: Path, version: int, kind: str) -> list[dict[str, Any]]:
    lines = map(json.loads, log_of(table, version).read_text().splitlines())
    return [line[kind] for line in lines if kind in line]


def delete_rows(table: Path, version: int, rows: Sequence[int]) -> None:
    """Delete rows of the first file of a version by a deletion vector, as Spark does, in the next version."""
    [add, *_] = actions(table, version, "add")
    bitmap = _roaring(rows)
    vector = {
        "storageType": "i",
        "pathOrInlineDv": _z85(bitmap),
        "sizeInBytes": len(bitmap),
        "cardinality": len(rows),
    }
    removed = {name: add[name] for name in ("path", "partitionValues", "size")}
    lines = [
        {"commitInfo": {"timestamp": 1, "operation": "DELETE"}},
        {"remove": {**removed, "deletionTimestamp": 1, "dataChange": True, "extendedFileMetadata": True}},
        {"add": {**add, "deletionVector": vector}},
    ]
    log_of(table, version + 1).write_text("\n".join(map(json.dumps, lines)))


def write_mapped_delta(path: Path, table: pa.Table, physical: Mapping[str, str], *, partition: str) -> Path:
    """A table with column mapping by name: the data file and the log use physical names."""
    (path / "_delta_log").mkdir(parents=True)
    [value] = set(table.column(partition).to_pylist())
    stored = table.drop_columns([partition]).rename_columns([physical[n] for n in table.schema.names if n != partition])
    pq.write_table(stored, path / "part-0.parquet")
    kinds = {pa.int64(): "long", pa.string(): "string"}
    fields = [
        {
            "name": field.name,
            "type": kinds[field.type],
            "nullable": True,
            "metadata": {"delta.columnMapping.id": i, "delta.columnMapping.physicalName": physical[field.name]},
        }
        for i, field in enumerate(table.schema, 1)
    ]
    schema = json.dumps({"type": "struct", "fields": fields})
    configuration = {"delta.columnMapping.mode": "name", "delta.columnMapping.maxColumnId": str(len(fields))}
    metadata = {
        "id": "x",
        "format": {"provider": "parquet", "options": {}},
        "schemaString": schema,
        "partitionColumns": [partition],
        "configuration": configuration,
    }
    add = {
        "path": "part-0.parquet",
        "partitionValues": {physical[partition]: value},
        "size": (path / "part-0.parquet").stat().st_size,
        "modificationTime": 1,
        "dataChange": True,
    }
    lines = [{"protocol": {"minReaderVersion": 2, "minWriterVersion": 5}}, {"metaData": metadata}, {"add": add}]
    log_of(path, 0).write_text("\n".join(map(json.dumps, lines)))
    return path


class Iceberg:
    """A table of a catalog in SQLite; `table` is pyiceberg's, `path` its folder."""

    def __init__(self, root: Path, columns: Mapping[str, Any], **properties: str) -> None:
        from pyiceberg.catalog.sql import SqlCatalog

        root.mkdir(parents=True, exist_ok=True)
        self._catalog = SqlCatalog("test", uri=f"sqlite:///{root}/catalog.db", warehouse=f"file://{root}")
        self._catalog.create_namespace("lake")
        content = pa.table(dict(columns))
        self.table = self._catalog.create_table("lake.sales", schema=content.schema, properties=properties)
        self.table.append(content)
        self.path = root / "lake" / "sales"

    def close(self) -> None:
        self._catalog.engine.dispose()


def _z85(content: bytes) -> str:
    content += b"\0" * (-len(content) % 4)
    text = ""
    for begin in range(0, len(content), 4):
        value, digits = int.from_bytes(content[begin : begin + 4], "big"), ""
        for _ in range(5):
            value, digit = divmod(value, 85)
            digits = Z85[digit] + digits
        text += digits
    return text


def _roaring(rows: Sequence[int]) -> bytes:
    """A bitmap of row numbers below 65536 in the portable format, in the frame of a deletion vector."""
    bitmap = struct.pack("<IIHHI", 12346, 1, 0, len(rows) - 1, 16) + struct.pack(f"<{len(rows)}H", *rows)
    return struct.pack("<IQI", 1681511377, 1, 0) + bitmap
