"""Jobs that append their predictions to Delta and Iceberg tables, exactly once, whenever they are killed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from service.scoring import execution
from service.scoring.job import ScoringError
from service.scoring.output.ledger import Ledger
from service.scoring.output.tables import append
from tests.service.scoring.conftest import Score, tree
from tests.service.scoring.inputs import texts, write_jsonl, write_parquet
from tests.service.scoring.object_server import ObjectServer

Row = dict[str, Any]


class Lake(Protocol):
    """A table of one format. `commits` counts those that added rows."""

    name: str

    def rows(self) -> list[Row]: ...

    def commits(self) -> int: ...

    def put(self, table: pa.Table) -> None: ...


class Delta:
    def __init__(self, place: str, options: dict[str, str] | None = None) -> None:
        self.name, self._place, self._options = place, place.partition("?")[0], options or {}

    def _table(self) -> DeltaTable:
        return DeltaTable(self._place, storage_options=self._options)

    def rows(self) -> list[Row]:
        reader = pa.RecordBatchReader.from_stream(self._table().to_pyarrow_dataset().scanner().to_reader())
        return list(reader.read_all().to_pylist())

    def commits(self) -> int:
        return sum("ekiben.mark" in entry for entry in self._table().history())

    def put(self, table: pa.Table) -> None:
        write_deltalake(self._place, table, mode="append", storage_options=self._options)


class Iceberg:
    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from pyiceberg import catalog
        from pyiceberg.utils.config import Config

        root.mkdir()
        monkeypatch.setenv("PYICEBERG_CATALOG__LAKE__URI", f"sqlite:///{root}/catalog.db")
        monkeypatch.setenv("PYICEBERG_CATALOG__LAKE__WAREHOUSE", f"file://{root}")
        monkeypatch.setattr(catalog, "_ENV_CONFIG", Config())
        self.name = "lake.news.scored"
        self.catalog: Any = catalog.load_catalog("lake")
        self.catalog.create_namespace("news")

    def rows(self) -> list[Row]:
        return list(self.catalog.load_table("news.scored").scan().to_arrow().to_pylist())

    def commits(self) -> int:
        snapshots = self.catalog.load_table("news.scored").snapshots()
        return sum("ekiben.mark" in snapshot.summary.additional_properties for snapshot in snapshots)

    def put(self, table: pa.Table) -> None:
        self.catalog.create_table_if_not_exists("news.scored", schema=table.schema).append(table)


@pytest.fixture(params=["delta", "iceberg"])
def lake(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lake]:
    if request.param == "delta":
        yield Delta(str(tmp_path / "lake"))
        return
    iceberg = Iceberg(tmp_path / "lake", monkeypatch)
    yield iceberg
    iceberg.catalog.engine.dispose()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    columns = {
        "text": [*texts(40), None],
        "n": pa.array(range(41), pa.uint8()),
        "city": ["Rome", "Oslo", None] * 13 + ["x", "y"],
    }
    return write_parquet(tmp_path / "in.parquet", columns)


def in_order(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row["file"], row["row"]))


class KilledError(BaseException):
    """Nothing catches it."""


def kill(*_: Any, **__: Any) -> None:
    raise KilledError


def test_predictions_are_appended_in_one_commit(lake: Lake, source: Path, score: Score, tmp_path: Path) -> None:
    options = {"keep": ("n", "city"), "append_to": lake.name}
    result = score("text-classifier", source, tmp_path / "out", **options)
    assert result.summary is not None
    assert result.summary["options"]["append_to"] == lake.name
    assert in_order(lake.rows()) == result.to_table().to_pylist()
    assert (len(lake.rows()), lake.commits()) == (40, 1)
    record = json.loads((tmp_path / "out/_ledger/appended-000000.json").read_text())
    assert (record["table"], record["rows"]) == (lake.name, 40)
    before = tree(tmp_path / "out")
    assert score("text-classifier", source, tmp_path / "out", **options).computed == 0
    assert tree(tmp_path / "out") == before
    assert lake.commits() == 1


@pytest.mark.parametrize("killed", ["before", "after", "recorded"])
def test_a_job_killed_around_its_commit_appends_once(
    killed: str, *, lake: Lake, source: Path, score: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target: Any = append.DeltaTarget if isinstance(lake, Delta) else append.IcebergTarget
    commit = target.append

    def commit_and_die(*arguments: Any) -> None:
        assert commit(*arguments)
        raise KilledError

    with monkeypatch.context() as patch:
        match killed:
            case "before":
                patch.setattr(target, "append", kill)
            case "after":
                patch.setattr(target, "append", commit_and_die)
            case _:
                patch.setattr(execution.Ledger, "finish", kill)
        with pytest.raises(KilledError):
            score("text-classifier", source, tmp_path / "out", append_to=lake.name)
    result = score("text-classifier", source, tmp_path / "out", append_to=lake.name)
    assert (result.failures, result.computed) == ((), 0)
    assert (len(lake.rows()), lake.commits()) == (40, 1)
    # What a job that was never killed leaves behind is the same, and tells that the table has its rows.
    score("text-classifier", source, tmp_path / "again", append_to=lake.name)
    assert tree(tmp_path / "again") == tree(tmp_path / "out")
    assert (len(lake.rows()), lake.commits()) == (40, 1)


def test_rows_that_the_table_holds_already_are_told(
    lake: Lake, source: Path, score: Score, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("out", "again"):
        score("text-classifier", source, tmp_path / name, append_to=lake.name)
    assert f"{lake.name} holds these 40 rows already; they are not appended again" in capsys.readouterr().err.replace(
        "\n", ""
    )
    assert len(lake.rows()) == 40


def test_lost_records_are_made_again_without_another_commit(
    lake: Lake, source: Path, score: Score, tmp_path: Path
) -> None:
    score("text-classifier", source, tmp_path / "out", append_to=lake.name)
    before = tree(tmp_path / "out")
    for name in ("_ledger/appended-000000.json", "predictions/part-00000-000001.parquet", "summary.json"):
        (tmp_path / "out" / name).unlink()
        assert score("text-classifier", source, tmp_path / "out", append_to=lake.name).failures == ()
        assert tree(tmp_path / "out") == before
    assert (len(lake.rows()), lake.commits()) == (40, 1)


def test_a_growing_input_is_appended_increment_by_increment(
    lake: Lake, score: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    options = {"append_to": lake.name, "new_only": True}
    write_jsonl(folder / "b.jsonl", {"text": texts(20)})
    score("text-classifier", folder, tmp_path / "out", **options)
    write_jsonl(folder / "a.jsonl", {"text": texts(17, seed=1)})
    with monkeypatch.context() as patch:
        patch.setattr(execution.Ledger, "write_document", kill)
        with pytest.raises(KilledError):
            score("text-classifier", folder, tmp_path / "out", **options)
    assert lake.commits() == 2
    write_jsonl(folder / "c.jsonl", {"text": texts(18, seed=2)})
    for _ in range(2):
        result = score("text-classifier", folder, tmp_path / "out", **options)
        assert result.failures == ()
        assert in_order(lake.rows()) == in_order(result.to_table().to_pylist())
    assert (len(lake.rows()), lake.commits()) == (55, 3)
    (folder / "a.jsonl").unlink()
    score("text-classifier", folder, tmp_path / "out", **options)
    assert (len(lake.rows()), lake.commits()) == (55, 3)


def test_a_commit_of_somebody_else_is_no_reason_to_fail(
    lake: Lake, source: Path, score: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another writer commits between the look-up of the mark and the commit; the second time it is the same mark."""
    score("text-classifier", source, tmp_path / "first", append_to=lake.name, limit=16)
    reader = append._reader

    def other_rows(*arguments: Any) -> pa.RecordBatchReader:
        monkeypatch.setattr(append, "_reader", reader)
        score("text-classifier", source, tmp_path / "other", append_to=lake.name, limit=10)
        return reader(*arguments)

    monkeypatch.setattr(append, "_reader", other_rows)
    score("text-classifier", source, tmp_path / "out", append_to=lake.name)
    assert (len(lake.rows()), lake.commits()) == (16 + 10 + 40, 3)

    def same_rows(*arguments: Any) -> pa.RecordBatchReader:
        monkeypatch.setattr(append, "_reader", reader)
        score("text-classifier", source, tmp_path / "same", append_to=lake.name, limit=11)
        return reader(*arguments)

    monkeypatch.setattr(append, "_reader", same_rows)
    score("text-classifier", source, tmp_path / "twin", append_to=lake.name, limit=11)
    assert (len(lake.rows()), lake.commits()) == (66 + 11, 4)


def test_a_table_that_does_not_fit_is_refused_before_the_first_row(
    lake: Lake, source: Path, score: Score, tmp_path: Path
) -> None:
    lake.put(pa.table({"file": ["a"], "row": pa.array([1], pa.int64()), "label": ["x"]}))
    with pytest.raises(ScoringError, match="the table has no column 'probability'"):
        score("text-classifier", source, tmp_path / "out", append_to=lake.name)
    assert not (tmp_path / "out").exists()
    assert len(lake.rows()) == 1


def test_a_table_with_further_columns_takes_the_rows(lake: Lake, source: Path, score: Score, tmp_path: Path) -> None:
    columns = {"note": ["x"], "row": [1], "file": ["a"], "label": ["x"], "probability": [0.5], "tokens": [3], "n": [1]}
    lake.put(pa.table(columns))
    result = score("text-classifier", source, tmp_path / "out", append_to=lake.name, keep=("n",))
    appended = in_order([row for row in lake.rows() if row["file"] != "a"])
    assert [{**row, "note": None} for row in result.to_table().to_pylist()] == appended


@pytest.mark.parametrize("partition_by", [("city", "label"), ("n",)])
def test_partitions_become_columns_again(
    partition_by: tuple[str, ...], lake: Lake, source: Path, score: Score, tmp_path: Path
) -> None:
    expected = score("text-classifier", source, tmp_path / "one", keep=("city", "n")).to_table().to_pylist()
    options = {"keep": ("city", "n"), "partition_by": partition_by, "append_to": lake.name}
    assert score("text-classifier", source, tmp_path / "out", **options).failures == ()
    assert in_order(lake.rows()) == expected
    if isinstance(lake, Delta):
        assert DeltaTable(lake.name).metadata().partition_columns == list(partition_by)


def test_object_storage(source: Path, score: Score, server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.put("in.parquet", source.read_bytes())
    options = {"endpoint": server.endpoint, "region": "us-east-1", "allow_http": "true"}
    lake = Delta(server.uri("lake"), options)
    with monkeypatch.context() as patch:
        patch.setattr(execution.Ledger, "write_document", kill)
        with pytest.raises(KilledError):
            score("text-classifier", server.uri("in.parquet"), server.uri("out"), append_to=lake.name)
    result = score("text-classifier", server.uri("in.parquet"), server.uri("out"), append_to=lake.name)
    assert result.failures == ()
    assert in_order(lake.rows()) == result.to_table().to_pylist()
    assert lake.commits() == 1
    files = server.tree("out")
    assert json.loads(files["_ledger/appended-000000.json"])["table"] == "s3://data/lake"
    assert not any(server.endpoint.encode() in content for content in files.values())


@pytest.mark.parametrize(
    ("append_to", "options", "message"),
    [
        ("{tmp}/out/lake", {}, "lies in the output of the job"),
        ("{tmp}", {}, "there are files .* and no Delta table; an Iceberg table is named CATALOG.NAMESPACE.TABLE"),
        ("https://host/lake", {}, "https is for input only"),
        (
            "nosuch.news.scored",
            {},
            "catalog 'nosuch': .*the Delta table in a folder of this name is ./nosuch.news.scored",
        ),
        ("{tmp}/lake", {"output_format": "csv"}, "needs --output-format parquet, not csv"),
        ("{tmp}/lake", {"keep": ("at",)}, r"column 'at' is timestamp\[ns\], and tables have no timestamp\[ns\]"),
    ],
)
def test_tables_that_cannot_be_appended_to_are_refused(
    append_to: str, options: dict[str, Any], message: str, score: Score, tmp_path: Path
) -> None:
    source = write_parquet(tmp_path / "in.parquet", {"text": texts(3), "at": pa.array([1, 2, 3], pa.timestamp("ns"))})
    with pytest.raises(ScoringError, match=message):
        score("text-classifier", source, tmp_path / "out", append_to=append_to.format(tmp=tmp_path), **options)
    assert not (tmp_path / "out").exists()


def test_an_output_has_one_table(source: Path, score: Score, tmp_path: Path) -> None:
    score("text-classifier", source, tmp_path / "out", append_to=tmp_path / "lake")
    with pytest.raises(ScoringError, match=r"belongs to another job \(append_to was .*lake', is None\)"):
        score("text-classifier", source, tmp_path / "out")
    assert "append_to" in (tmp_path / "out/_ledger/job.json").read_text()
    score("text-classifier", source, tmp_path / "none")
    assert "append_to" not in (tmp_path / "none/_ledger/job.json").read_text()


def test_a_job_without_predictions_appends_nothing(lake: Lake, score: Score, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", {"text": [None, None]})
    result = score("text-classifier", source, tmp_path / "out", append_to=lake.name)
    assert result.summary is not None
    assert result.summary["rejected"] == 2
    assert Ledger(tmp_path / "out").read_document("_ledger/appended-000000.json") is None
