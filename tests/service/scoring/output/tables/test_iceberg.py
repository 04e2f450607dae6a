"""An Iceberg table as a target: its names, marks and conflicts."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from service.scoring.job import ScoringError
from service.scoring.output.tables.iceberg import MAX_ATTEMPTS, NAME, IcebergTarget
from tests.service.scoring.output.tables.test_append import Iceberg

ROWS = pa.table({"a": [1, 2]})


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Iceberg]:
    iceberg = Iceberg(tmp_path / "lake", monkeypatch)
    yield iceberg
    iceberg.catalog.engine.dispose()


def reader(schema: pa.Schema) -> pa.RecordBatchReader:
    return pa.RecordBatchReader.from_batches(schema, ROWS.cast(schema).to_batches())


@pytest.mark.parametrize("name", ["lake.news.scored", "prod.a.b.scored"])
def test_names_of_tables(name: str) -> None:
    assert NAME.fullmatch(name)


@pytest.mark.parametrize("path", ["lake", "lake.delta", "./a.b.c", "/a.b.c", "s3://a.b.c", "..", "../a.b.c", "a..b.c"])
def test_paths_are_no_names(path: str) -> None:
    assert not NAME.fullmatch(path)


def test_a_mark_is_appended_once(lake: Iceberg) -> None:
    assert IcebergTarget(lake.name).schema() is None
    assert IcebergTarget(lake.name).append("one", ROWS.schema, reader)
    assert IcebergTarget(lake.name).schema() == ROWS.schema
    assert not IcebergTarget(lake.name).append("one", ROWS.schema, reader)
    assert IcebergTarget(lake.name).append("two", ROWS.schema, reader)
    assert (len(lake.rows()), lake.commits()) == (4, 2)


def test_a_commit_in_between_is_no_second_commit_of_the_mark(lake: Iceberg) -> None:
    readers = [reader]

    def faster(schema: pa.Schema) -> pa.RecordBatchReader:
        if len(readers) == 1:
            readers.append(reader)
            assert IcebergTarget(lake.name).append("one", ROWS.schema, reader)
        return reader(schema)

    assert not IcebergTarget(lake.name).append("one", ROWS.schema, faster)
    assert (len(lake.rows()), lake.commits()) == (2, 1)


def test_a_table_that_never_rests_is_given_up(lake: Iceberg) -> None:
    marks = iter(range(100))

    def busy(schema: pa.Schema) -> pa.RecordBatchReader:
        assert IcebergTarget(lake.name).append(f"other-{next(marks)}", ROWS.schema, reader)
        return reader(schema)

    with pytest.raises(ScoringError, match=r"--append-to lake\.news\.scored: "):
        IcebergTarget(lake.name).append("one", ROWS.schema, busy)
    assert lake.commits() == MAX_ATTEMPTS


def test_tables_that_cannot_be_appended_to(lake: Iceberg) -> None:
    from pyiceberg.transforms import IdentityTransform

    with pytest.raises(ScoringError, match="the catalog has no namespace 'nosuch': create it"):
        IcebergTarget("lake.nosuch.scored").schema()
    lake.put(ROWS)
    table = lake.catalog.load_table("news.scored")
    with table.update_spec() as update:
        update.add_field("a", IdentityTransform())
    with pytest.raises(ScoringError, match="rows cannot be streamed into a partitioned Iceberg table"):
        IcebergTarget(lake.name).schema()
