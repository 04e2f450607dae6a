"""Jobs whose predictions are partitioned: the layout, its readers, kills, damage and limits."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from service.scoring import shard
from service.scoring.job import ScoringError
from service.scoring.output.ledger import Ledger
from tests.service.scoring.conftest import Score, rejects, tree
from tests.service.scoring.inputs import texts, write_csv, write_jsonl, write_parquet
from tests.service.scoring.object_server import ObjectServer

CITIES = ["Rome", "São Paulo", "a/b=c", "", "100%", "007", None]
Row = dict[str, Any]


def source(folder: Path, rows: int = 50) -> Path:
    columns = {
        "text": texts(rows),
        "city": [CITIES[i % len(CITIES)] for i in range(rows)],
        "day": [date(2024, 1, 1 + i % 2) for i in range(rows)],
        "n": pa.array(range(rows), pa.int64()),
    }
    return write_parquet(folder / "in.parquet", columns)


def by_row(rows: list[Row]) -> dict[int, Row]:
    return {row["row"]: row for row in rows}


def expected_rows(path: Path) -> dict[int, tuple[str | None, date]]:
    rows = pq.read_table(path).to_pylist()
    return {i: (row["city"], row["day"]) for i, row in enumerate(rows)}


def test_folders_hold_the_rows_of_their_values(score: Score, tmp_path: Path) -> None:
    path = source(tmp_path)
    unpartitioned = score("text-classifier", path, tmp_path / "unpartitioned", keep=("n",)).to_table().to_pylist()
    result = score("text-classifier", path, tmp_path / "out", keep=("n",), partition_by=("city", "day"))
    assert result.summary is not None
    assert result.summary["options"]["partition_by"] == ["city", "day"]
    names = {name.split("/")[1] for name in tree(tmp_path / "out") if name.startswith("predictions/")}
    assert names == {
        "city=Rome",
        "city=S%C3%A3o%20Paulo",
        "city=a%2Fb%3Dc",
        "city=",
        "city=100%25",
        "city=007",
        "city=__HIVE_DEFAULT_PARTITION__",
    }
    [part] = (tmp_path / "out" / "predictions" / "city=Rome" / "day=2024-01-01").glob("part-00000-000000.parquet")
    assert not {"city", "day"} & set(pq.read_schema(part).names)
    rows = by_row(result.to_table().to_pylist())
    assert {row: (values["city"], values["day"]) for row, values in rows.items()} == expected_rows(path)
    for row in unpartitioned:
        assert {name: rows[row["row"]][name] for name in row} == row


def test_pyarrow_polars_and_duckdb_read_the_folders(score: Score, tmp_path: Path) -> None:
    path = source(tmp_path)
    score("text-classifier", path, tmp_path / "out", partition_by=("city", "day"))
    folder = tmp_path / "out" / "predictions"
    schema = pa.schema([("city", pa.string()), ("day", pa.date32())])
    dataset = pads.dataset(folder, partitioning=pads.partitioning(schema, flavor="hive"))
    frame = pl.read_parquet(
        f"{folder}/**/*.parquet", hive_partitioning=True, hive_schema=dict.fromkeys(("city", "day"), pl.String)
    )
    relation = duckdb.sql(
        f"SELECT row, city, day FROM read_parquet('{folder}/**/*.parquet', hive_types={{'city': VARCHAR, 'day': DATE}})"
    )
    expected = expected_rows(path)
    assert {r["row"]: (r["city"], r["day"]) for r in dataset.to_table().to_pylist()} == expected
    assert {r["row"]: (r["city"], date.fromisoformat(r["day"])) for r in frame.to_dicts()} == expected
    assert {row: (city, day) for row, city, day in relation.fetchall()} == expected


@pytest.mark.parametrize("sink", ["parquet", "csv", "jsonl"])
def test_the_predicted_label_is_a_partition_of_every_format(sink: str, score: Score, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "in.jsonl", {"text": texts(40), "label": list(range(40))})
    unpartitioned = score("text-classifier", path, tmp_path / "unpartitioned").to_table()
    result = score("text-classifier", path, tmp_path / "out", partition_by=("label",), output_format=sink)
    rows = by_row(result.to_table().to_pylist())
    assert {row: values["label"] for row, values in rows.items()} == dict(
        zip(unpartitioned["row"].to_pylist(), unpartitioned["label"].to_pylist(), strict=True)
    )
    assert not {"input_label"} & set(rows[0])


def test_an_input_column_that_is_renamed_gives_its_new_name(score: Score, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "in.jsonl", {"text": texts(4), "row": ["x", 2, None, "y"]})
    table = score("text-classifier", path, tmp_path / "out", partition_by=("row",)).to_table()
    assert dict(zip(table["row"].to_pylist(), table["input_row"].to_pylist(), strict=True)) == {
        0: "x", 1: "2", 2: None, 3: "y",
    }  # fmt: skip


def test_a_killed_job_resumes_to_the_same_bytes_and_repairs_lost_parts(
    score: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, options = source(tmp_path), {"partition_by": ("city",)}
    score("text-classifier", path, tmp_path / "expected", **options)
    expected = tree(tmp_path / "expected")

    class KilledError(BaseException):
        """Nothing catches it."""

    publish, published = shard.Ledger.commit, list[str]()

    def commit(ledger: Ledger, planned: Any, record: Any, parts: Any) -> None:
        if planned.number == 1 and not published:
            name, path = next(iter(parts.items()))
            ledger._folder.publish({name: path})
            published.append(name)
            raise KilledError
        publish(ledger, planned, record, parts)

    monkeypatch.setattr(shard.Ledger, "commit", commit)
    with pytest.raises(KilledError):
        score("text-classifier", path, tmp_path / "out", **options)
    assert (tmp_path / "out" / published[0]).exists()
    assert score("text-classifier", path, tmp_path / "out", **options).failures == ()
    assert tree(tmp_path / "out") == expected
    parts = sorted(name for name in expected if name.startswith("predictions/"))
    (tmp_path / "out" / parts[3]).unlink()
    (tmp_path / "out" / parts[5]).write_bytes(b"cut")
    assert score("text-classifier", path, tmp_path / "out", **options).failures == ()
    assert tree(tmp_path / "out") == expected
    assert score("text-classifier", path, tmp_path / "out", **options).computed == 0


def test_an_object_store_holds_the_same_parts(score: Score, server: ObjectServer, tmp_path: Path) -> None:
    path, options = source(tmp_path), {"partition_by": ("city", "label")}
    server.put("in.parquet", path.read_bytes())
    local = score("text-classifier", path, tmp_path / "out", **options)
    remote = score("text-classifier", server.uri("in.parquet"), server.uri("out"), **options)

    def parts(files: dict[str, bytes]) -> dict[str, bytes]:
        return {name: content for name, content in files.items() if name.startswith("predictions/")}

    expected = parts(tree(tmp_path / "out"))
    assert parts(server.tree("out")) == expected
    assert remote.to_table().equals(local.to_table())
    lost = sorted(expected)[2]
    server.delete(f"out/{lost}")
    assert score("text-classifier", server.uri("in.parquet"), server.uri("out"), **options).computed == 16
    assert parts(server.tree("out")) == expected


def test_too_many_partitions_are_one_error_before_output(
    score: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from service.scoring.output.partitions import sink

    monkeypatch.setattr(sink, "MAX_PARTITIONS", 10)
    path = source(tmp_path)
    result = score("text-classifier", path, tmp_path / "out", partition_by=("n",))
    [failure] = result.failures
    assert "shard 00000-000000 (in.parquet, rows 0 to 15): " in failure
    assert "more than 10 partitions by n: choose columns with fewer values, or --shard-rows 10" in failure
    assert not (tmp_path / "out" / "predictions").exists()
    assert score("text-classifier", path, tmp_path / "few", partition_by=("n",), shard_rows=10).failures == ()


def test_a_value_that_names_no_folder_is_a_reject(score: Score, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "in.csv", {"text": texts(3), "k": ["a", "__HIVE_DEFAULT_PARTITION__", "x" * 300]})
    result = score("text-classifier", path, tmp_path / "out", partition_by=("k",))
    assert result.summary is not None
    assert (result.summary["scored"], result.summary["rejected"]) == (1, 2)
    assert [(line["row"], line["reason"]) for line in rejects(tmp_path / "out")] == [
        (1, "column 'k': the value __HIVE_DEFAULT_PARTITION__ means null in the name of a folder (--partition-by k)"),
        (2, "column 'k': the value is too long for the name of a folder (--partition-by k)"),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"partition_by": ("nosuch",)}, "no column 'nosuch' in in.parquet"),
        ({"partition_by": ("score",)}, "--partition-by score: the column is double; expected texts"),
        ({"partition_by": ("_k",)}, "--partition-by _k: readers pass over folders whose names begin with '_'"),
        ({"partition_by": ("k", "k")}, "--partition-by k, k: a column is named twice"),
        ({"partition_by": ("text",), "keep": ("*",)}, "--keep '\\*' does not copy what feeds the model"),
    ],
)
def test_columns_that_cannot_name_folders_are_refused(
    options: dict[str, Any], message: str, score: Score, tmp_path: Path
) -> None:
    columns = {"text": texts(3), "k": ["a", "b", "c"], "_k": ["a", "b", "c"], "score": [0.5, 1.0, 2.0]}
    with pytest.raises(ScoringError, match=message):
        score("text-classifier", write_parquet(tmp_path / "in.parquet", columns), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_job_without_partitions_has_the_identity_of_earlier_releases(score: Score, tmp_path: Path) -> None:
    path = source(tmp_path)
    score("text-classifier", path, tmp_path / "out")
    assert "partition_by" not in json.loads((tmp_path / "out" / "_ledger" / "job.json").read_text())
    with pytest.raises(ScoringError, match=r"belongs to another job \(keep was .*partition_by was None, is \['city'\]"):
        score("text-classifier", path, tmp_path / "out", partition_by=("city",))
