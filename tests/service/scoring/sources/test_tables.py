"""Data files of tables: live rows, in spans of any order."""

import random
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.scoring.input.rows import ReadSpec, Span
from service.scoring.input.tables import list_inputs
from service.scoring.job import ScoringError, TextOptions
from service.scoring.sources import SOURCES, tables
from tests.service.scoring.lake import Iceberg, delete_rows, write_delta, write_mapped_delta

ROWS = 500


def read_table(path: object, shard_rows: int, *names: str) -> list[dict[str, Any]]:
    """Every row of a table; the spans of a file are read in a random order."""
    found = []
    for file in list_inputs([str(path)], output=Path("/nowhere"), input_format=None):
        source = SOURCES[file.format]
        spec = ReadSpec(columns=names or tuple(source.schema(file, TextOptions()).names))
        with closing(source(file, spec)) as planned:
            spans = list(planned.spans(shard_rows=shard_rows))
        assert all(span.rows <= shard_rows for span in spans)
        random.Random(0).shuffle(spans)
        with closing(source(file, spec)) as reader:
            rows = [row for span in spans for row in _rows(reader.read(span))]
        rows.sort(key=lambda row: row[0])
        assert [number for number, _ in rows] == list(range(len(rows)))
        found += [values for _, values in rows]
    return found


def _rows(parts: Any) -> list[tuple[int, dict[str, Any]]]:
    return [
        (number, {name: column[i].as_py() for name, column in part.columns.items()})
        for part in parts
        for i, number in enumerate(part.numbers)
    ]


@pytest.mark.parametrize("shard_rows", [1, 7, 100, 1000])
@pytest.mark.parametrize("chunk", [3, 8192])
def test_live_rows_of_a_delta_file(
    shard_rows: int, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "CHUNK_ROWS", chunk)
    count = 40 if shard_rows == 1 else ROWS
    options = {"configuration": {"delta.enableDeletionVectors": "true"}}
    table = write_delta(tmp_path / "t", {"id": range(count), "text": list(map(str, range(count)))}, **options)
    deleted = sorted(random.Random(1).sample(range(count), count // 3))
    delete_rows(table, 0, deleted)
    expected = [{"id": i, "text": str(i)} for i in range(count) if i not in set(deleted)]
    assert read_table(table, shard_rows) == expected
    assert read_table(table, shard_rows, "id") == [{"id": row["id"]} for row in expected]


def test_columns_added_renamed_and_widened(tmp_path: Path) -> None:
    table = write_delta(tmp_path / "t", {"id": pa.array([1, 2], pa.int64()), "day": ["a", "b"]}, partition_by=["day"])
    added = {"id": pa.array([3], pa.int64()), "day": ["c"], "extra": [0.5]}
    write_delta(table, added, mode="append", schema_mode="merge")
    rows = sorted(read_table(table, 10), key=lambda row: row["id"])
    assert rows == [
        {"id": 1, "day": "a", "extra": None},
        {"id": 2, "day": "b", "extra": None},
        {"id": 3, "day": "c", "extra": 0.5},
    ]
    assert sorted(row["day"] for row in read_table(table, 10, "day")) == ["a", "b", "c"]


def test_mapped_columns_are_read_by_their_names(tmp_path: Path) -> None:
    content = pa.table({"id": [1, 2], "text": ["x", "y"], "day": ["z", "z"]})
    names = {"id": "col-1", "text": "col-2", "day": "col-3"}
    table = write_mapped_delta(tmp_path / "t", content, names, partition="day")
    assert read_table(table, 10) == content.to_pylist()


def test_rows_of_an_iceberg_table_with_a_new_schema(tmp_path: Path) -> None:
    from pyiceberg.types import LongType

    iceberg = Iceberg(tmp_path, {"id": pa.array(range(ROWS)), "text": list(map(str, range(ROWS)))})
    iceberg.table.delete("id >= 300")
    with iceberg.table.update_schema() as update:
        update.add_column("extra", LongType())
        update.rename_column("text", "body")
    iceberg.table.append(pa.table({"id": pa.array([999]), "body": ["new"], "extra": [5]}))
    iceberg.close()
    rows = sorted(read_table(iceberg.path, 64), key=lambda row: row["id"])
    assert rows == [
        *({"id": i, "body": str(i), "extra": None} for i in range(300)),
        {"id": 999, "body": "new", "extra": 5},
    ]


def test_positions_that_an_iceberg_delete_file_names_are_not_read(tmp_path: Path) -> None:
    """pyiceberg writes no delete files yet, so the test hands one to the reader."""
    iceberg = Iceberg(tmp_path, {"id": pa.array(range(10))})
    iceberg.close()
    [file] = list_inputs([str(iceberg.path)], output=Path("/nowhere"), input_format=None)
    snapshot = tables.open_iceberg(*tables._table(file))
    [task] = snapshot.tasks.values()
    path = tmp_path / "deletes.parquet"
    positions = pa.array([0, 4, 9], pa.int64())
    pq.write_table(pa.table({"file_path": [task.file.file_path] * 3, "pos": positions}), path)
    from pyiceberg.manifest import DataFile, DataFileContent, FileFormat

    task.delete_files.add(
        DataFile.from_args(
            content=DataFileContent.POSITION_DELETES,
            file_path=str(path),
            file_format=FileFormat.PARQUET,
            partition=task.file.partition,
            record_count=3,
            file_size_in_bytes=path.stat().st_size,
        )
    )
    source = SOURCES["iceberg"](file, ReadSpec(columns=("id",)))
    [span] = source.spans(shard_rows=100)
    assert span.rows == 7
    [part] = source.read(span)
    assert part.columns["id"].to_pylist() == [1, 2, 3, 5, 6, 7, 8]


def test_digest_covers_rows_and_types(tmp_path: Path) -> None:
    def digests(name: str, column: pa.Array) -> list[str]:
        table = write_delta(tmp_path / name, {"id": column})
        [file] = list_inputs([str(table)], output=Path("/nowhere"), input_format=None)
        source = SOURCES["delta"](file, ReadSpec(columns=("id",)))
        return [span.digest for span in source.spans(shard_rows=2)]

    before = digests("a", pa.array([1, 2, 3]))
    assert digests("b", pa.array([1, 2, 3])) == before
    assert [a == b for a, b in zip(digests("c", pa.array([1, 2, 4])), before, strict=True)] == [True, False]
    assert digests("d", pa.array([1, 2, 3], pa.int32())) != before


def test_file_that_shrank_is_an_error(tmp_path: Path) -> None:
    table = write_delta(tmp_path / "t", {"id": range(3)})
    [file] = list_inputs([str(table)], output=Path("/nowhere"), input_format=None)
    source = SOURCES["delta"](file, ReadSpec(columns=("id",)))
    with pytest.raises(EOFError, match="has 2 rows fewer"):
        list(source.read(Span(first_row=0, rows=5, start=0, stop=5, digest="")))


def test_nested_columns_of_mapped_tables_are_refused(tmp_path: Path) -> None:
    snapshot = tables.DeltaSnapshot(
        version=0, schema=pa.schema([]), physical={"a": "col-1"}, files=(), deleted={"x": np.array([1])}
    )
    write_delta(tmp_path / "t", {"id": range(3)})
    [file] = list_inputs([str(tmp_path / "t")], output=Path("/nowhere"), input_format=None)
    with pytest.raises(ScoringError, match="the nested column 'a' of a Delta table with column mapping"):
        tables._check_nested(file, snapshot, pa.schema([("a", pa.list_(pa.int8()))]))
