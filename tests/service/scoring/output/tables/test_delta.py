"""A Delta table as a target: its marks, and two writers of one mark."""

from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from service.scoring.job import ScoringError
from service.scoring.output.tables.delta import DeltaTarget
from service.scoring.storage.location import parse_location

ROWS = pa.table({"a": [1, 2]})


def target(path: Path) -> DeltaTarget:
    return DeltaTarget(parse_location(str(path), option="--append-to"), ())


def reader(schema: pa.Schema) -> pa.RecordBatchReader:
    return pa.RecordBatchReader.from_batches(schema, ROWS.cast(schema).to_batches())


def test_a_mark_is_appended_once(tmp_path: Path) -> None:
    assert target(tmp_path / "t").schema() is None
    assert target(tmp_path / "t").append("one", ROWS.schema, reader)
    assert target(tmp_path / "t").schema() == ROWS.schema
    assert not target(tmp_path / "t").append("one", ROWS.schema, reader)
    assert target(tmp_path / "t").append("two", ROWS.schema, reader)
    # The first version is the empty table.
    assert DeltaTable(tmp_path / "t").version() == 2


def test_the_faster_of_two_writers_of_one_mark_wins(tmp_path: Path) -> None:
    """The first creates the table under the second, then commits its mark under it."""
    for mark in ("one", "two"):

        def faster(schema: pa.Schema, mark: str = mark) -> pa.RecordBatchReader:
            assert target(tmp_path / "t").append(mark, ROWS.schema, reader)
            return reader(schema)

        assert not target(tmp_path / "t").append(mark, ROWS.schema, faster)
    assert DeltaTable(tmp_path / "t").version() == 2


def test_two_writers_create_one_table(tmp_path: Path) -> None:
    one, two = target(tmp_path / "t"), target(tmp_path / "t")
    assert one._open() is two._open() is None
    assert one._create(ROWS.schema).version() == two._create(ROWS.schema).version() == 0


def test_marks_survive_checkpoints_and_cleanups(tmp_path: Path) -> None:
    assert target(tmp_path / "t").append("one", ROWS.schema, reader)
    for _ in range(3):
        write_deltalake(tmp_path / "t", ROWS, mode="overwrite")
    table = DeltaTable(tmp_path / "t")
    table.create_checkpoint()
    table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    assert not target(tmp_path / "t").append("one", ROWS.schema, reader)


def test_an_error_of_the_table_names_it(tmp_path: Path) -> None:
    assert target(tmp_path / "t").append("one", ROWS.schema, reader)
    DeltaTable(tmp_path / "t").alter.add_constraint({"small": "a < 2 OR a > 0"})
    DeltaTable(tmp_path / "t").alter.add_constraint({"large": "a > 0"})

    def bad(schema: pa.Schema) -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_batches(schema, pa.table({"a": [-1]}).to_batches())

    with pytest.raises(ScoringError, match=r"--append-to .*/t: "):
        target(tmp_path / "t").append("two", ROWS.schema, bad)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file.txt").write_text("x")
    with pytest.raises(ScoringError, match=r"there are files \(file\.txt\) and no Delta table"):
        target(tmp_path / "other").schema()
