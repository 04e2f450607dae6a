"""Inputs that people have: each is read right at the first try, or refused in one line that names the way out."""

import csv
import io
import json
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from service.scoring.job import ScoringError
from service.scoring.run import Result
from tests.service.scoring.conftest import Score, predictions, rejects, tree
from tests.service.scoring.inputs import images, png, texts, write_csv, write_jsonl, write_parquet
from tests.service.scoring.lake import Iceberg, delete_rows, write_delta

ROWS = 30
QUOTED = ['She said "hello"', 'a "b", c', "plain, with a comma", 'ends with a "quote"', "two\nlines", "back\\slash"]


def counts(result: Result) -> tuple[int, int]:
    assert result.failures == ()
    assert result.summary is not None
    return result.summary["scored"], result.summary["rejected"]


def parts(output: Path) -> list[str]:
    return [str(path) for path in sorted((output / "predictions").iterdir())]


# Tables of data files.


def test_delta_table_is_read_as_its_live_rows(score: Score, tmp_path: Path) -> None:
    table = write_delta(tmp_path / "t", {"id": range(ROWS), "text": texts(ROWS)})
    write_delta(table, {"id": range(100, 105), "text": texts(5, seed=1)}, mode="overwrite")
    assert counts(score("text-classifier", table, tmp_path / "out", id_column="id")) == (5, 0)
    assert [row["id"] for row in predictions(tmp_path / "out")] == list(range(100, 105))
    assert counts(score("text-classifier", Path(f"{table}?version=0"), tmp_path / "old", id_column="id")) == (ROWS, 0)


def test_delta_table_of_another_version_is_another_job(score: Score, tmp_path: Path) -> None:
    table = write_delta(tmp_path / "t", {"id": range(ROWS), "text": texts(ROWS)})
    score("text-classifier", table, tmp_path / "out")
    write_delta(table, {"id": [1], "text": ["the train"]}, mode="append")
    with pytest.raises(ScoringError, match=r"inputs was \['t@0/.*, is \['t@1/"):
        score("text-classifier", table, tmp_path / "out")
    assert counts(score("text-classifier", Path(f"{table}?version=0"), tmp_path / "out")) == (ROWS, 0)


def test_rows_behind_a_deletion_vector_are_not_read(score: Score, tmp_path: Path) -> None:
    options = {"configuration": {"delta.enableDeletionVectors": "true"}, "partition_by": ["day"]}
    table = write_delta(tmp_path / "t", {"id": range(ROWS), "text": texts(ROWS), "day": ["a b"] * ROWS}, **options)
    delete_rows(table, 0, [0, 7, 16, 29])
    assert counts(score("text-classifier", table, tmp_path / "out", keep=("*",), shard_rows=5)) == (ROWS - 4, 0)
    rows = predictions(tmp_path / "out")
    assert [row["id"] for row in rows] == [i for i in range(ROWS) if i not in {0, 7, 16, 29}]
    assert [row["row"] for row in rows] == list(range(ROWS - 4))
    assert {row["day"] for row in rows} == {"a b"}


def test_table_inside_of_the_input_folder_is_found(score: Score, tmp_path: Path) -> None:
    write_delta(tmp_path / "lake" / "sub" / "t", {"id": range(ROWS), "text": texts(ROWS)})
    table = write_delta(tmp_path / "lake" / "sub" / "t", {"id": [9], "text": ["the train"]}, mode="overwrite")
    assert counts(score("text-classifier", tmp_path / "lake", tmp_path / "out")) == (1, 0)
    assert predictions(tmp_path / "out")[0]["file"].startswith("sub/t@1/")
    for name in ("*.parquet", next(path.name for path in table.glob("*.parquet"))):
        with pytest.raises(ScoringError, match=r"belongs to the table .*/lake/sub/t, pass that folder as --input"):
            score("text-classifier", table / name, tmp_path / "other")


def test_iceberg_table_is_read_as_its_live_rows(score: Score, tmp_path: Path) -> None:
    iceberg = Iceberg(tmp_path / "wh", {"id": pa.array(range(ROWS)), "text": texts(ROWS)})
    snapshot = iceberg.table.current_snapshot()
    assert snapshot is not None
    iceberg.table.delete("id < 25")
    with iceberg.table.update_schema() as update:
        update.rename_column("id", "key")
    iceberg.table.append(pa.table({"key": pa.array([77]), "text": ["the train"]}))
    iceberg.close()
    assert counts(score("text-classifier", iceberg.path, tmp_path / "out", id_column="key")) == (6, 0)
    assert sorted(row["key"] for row in predictions(tmp_path / "out")) == [25, 26, 27, 28, 29, 77]
    old = Path(f"{iceberg.path}?version={snapshot.snapshot_id}")
    assert counts(score("text-classifier", old, tmp_path / "old", id_column="id")) == (ROWS, 0)


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_interrupted_job_of_a_table_ends_with_equal_bytes(form: str, score: Score, tmp_path: Path) -> None:
    options = {"configuration": {"delta.enableDeletionVectors": "true"}}
    table = write_delta(tmp_path / "t", {"id": range(ROWS), "text": texts(ROWS)}, **options)
    delete_rows(table, 0, [3, 11])
    for name in ("whole", "resumed"):
        score("text-classifier", table, tmp_path / name, id_column="id", shard_rows=5, output_format=form)
    # As after a kill: some shards are committed, two are not.
    output = tmp_path / "resumed"
    (output / "_ledger" / "done.json").unlink()
    for number in (0, 3):
        (output / "_ledger" / "shards" / f"00000-{number:06d}.json").unlink()
        (output / "predictions" / f"part-00000-{number:06d}.{form}").unlink()
    again = score("text-classifier", table, output, id_column="id", shard_rows=5, output_format=form)
    assert again.computed == 10
    assert tree(output) == tree(tmp_path / "whole")


@pytest.mark.parametrize(
    ("kind", "mark", "data"),
    [("Hudi", ".hoodie/hoodie.properties", "a.parquet"), ("Paimon", "snapshot/LATEST", "bucket-0/data-0.parquet")],
)
def test_other_tables_are_refused(kind: str, mark: str, data: str, score: Score, tmp_path: Path) -> None:
    for name in (mark, data):
        (tmp_path / "t" / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "t" / mark).write_text("1")
    write_parquet(tmp_path / "t" / data, {"text": texts(3)})
    for source in (tmp_path / "t", tmp_path):
        with pytest.raises(
            ScoringError, match=f"a {kind} table, which is not supported: write its rows to Parquet first"
        ):
            score("text-classifier", source, tmp_path / "out")
    with pytest.raises(ScoringError, match="belongs to the table"):
        score("text-classifier", tmp_path / "t" / data, tmp_path / "out")


# CSV of other dialects.


def dialect_file(path: Path, **options: Any) -> Path:
    with path.open("w", newline="", encoding=options.pop("encoding", "utf-8")) as file:
        writer = csv.writer(file, **options)
        writer.writerows([("id", "text"), *((str(i), text) for i, text in enumerate(QUOTED))])
    return path


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
def test_other_delimiter_is_refused_by_name_and_read_when_it_is_said(
    delimiter: str, quoting: int, score: Score, tmp_path: Path
) -> None:
    source = dialect_file(tmp_path / "a.csv", delimiter=delimiter, quoting=quoting)
    with pytest.raises(ScoringError, match=r"a\.csv: looks as if .* divides it into 2 columns: say --delimiter"):
        score("text-classifier", source, tmp_path / "out")
    assert counts(score("text-classifier", source, tmp_path / "out", delimiter=delimiter, keep=("*",))) == (6, 0)
    assert [row["id"] for row in predictions(tmp_path / "out")] == list("012345")


def test_separator_line_of_excel_is_understood(score: Score, tmp_path: Path) -> None:
    source = tmp_path / "a.csv"
    source.write_bytes("\ufeffsep=;\r\nid;text\r\n1;the train, late\r\n2;a b\r\n".encode())
    assert counts(score("text-classifier", source, tmp_path / "out", id_column="id")) == (2, 0)
    assert [(row["row"], row["id"]) for row in predictions(tmp_path / "out")] == [(0, "1"), (1, "2")]


@pytest.mark.parametrize("rows", [["the train is late", "a b"], ["late", "early"]])
def test_missing_header_is_refused_by_name(rows: list[str], score: Score, tmp_path: Path) -> None:
    source = tmp_path / "a.csv"
    source.write_text("\n".join(rows))
    with pytest.raises(ScoringError, match=r"pass --column text=NAME if it is the header, or --no-header if"):
        score("text-classifier", source, tmp_path / "out")
    assert counts(score("text-classifier", source, tmp_path / "out", header=False)) == (2, 0)
    assert counts(score("text-classifier", source, tmp_path / "named", columns={"text": rows[0]})) == (1, 0)


def spark_file(path: Path, rows: list[str]) -> Path:
    """As Spark writes them: quotes where a field needs them, and a backslash before a quote or backslash inside."""

    def field(text: str) -> str:
        if not any(character in text for character in ',"\n'):
            return text
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    path.write_text("id,text\n" + "".join(f"{i},{field(text)}\n" for i, text in enumerate(rows)))
    return path


def test_escaped_quotes_are_refused_by_name_and_read_when_it_is_said(score: Score, tmp_path: Path) -> None:
    rows = [*QUOTED, "a\\b", 'a\\"b', '"', '\\"', '"x"', '{"a": "x\\"y"}', "\\\\server\\share", "ends, with \\"]
    source = spark_file(tmp_path / "a.csv", rows)
    with pytest.raises(ScoringError, match=r"say --escape '\\' if it escapes the quote"):
        score("text-classifier", source, tmp_path / "out")
    result = score("text-classifier", source, tmp_path / "out", escape="\\", keep=("text",), request={"truncate": True})
    assert counts(result) == (len(rows), 0)
    assert [row["text"] for row in predictions(tmp_path / "out")] == rows


def test_late_escaped_quotes_are_rejected(score: Score, tmp_path: Path) -> None:
    """The first records, which are looked at before the first row, have none."""
    lines = [f"{i},the train" for i in range(9000)]
    lines += ['1,"C:\\"', '2,"say \\"hi\\""', '3,"{""a"": ""x\\""y""}"', "4,the train"]
    (tmp_path / "a.csv").write_text("id,text\n" + "\n".join(lines) + "\n")
    options: dict[str, Any] = {"request": {"truncate": True}, "id_column": "id", "shard_rows": 4096}
    score("text-classifier", tmp_path / "a.csv", tmp_path / "out", **options)
    assert [row["row"] for row in rejects(tmp_path / "out")] == [9000, 9001]
    assert all("say --escape" in row["reason"] for row in rejects(tmp_path / "out"))
    assert [row["id"] for row in predictions(tmp_path / "out")][-2:] == ["3", "4"]


def test_backslashes_before_quotes_of_json_are_no_escapes(score: Score, tmp_path: Path) -> None:
    """A column of JSON in a file of doubled quotes is read at once: with another escape it would not be CSV."""
    rows = [json.dumps({"a": f'say "{i}"', "b": "C:\\"}) for i in range(5)]
    pd.DataFrame({"text": rows}).to_csv(tmp_path / "a.csv", index=False)
    result = score("text-classifier", tmp_path / "a.csv", tmp_path / "out", keep=("text",), request={"truncate": True})
    assert counts(result) == (5, 0)
    assert [row["text"] for row in predictions(tmp_path / "out")] == rows


@pytest.mark.parametrize(
    ("encoding", "option"), [("utf-16", None), ("utf-8-sig", None), ("cp1252", "cp1252"), ("utf-16-le", "utf-16-le")]
)
def test_encodings(encoding: str, option: str | None, score: Score, tmp_path: Path) -> None:
    rows = ["Zug für Köln", "naïve train", "plain"]
    source = tmp_path / "a.csv"
    source.write_bytes("\n".join(["id,text", *(f"{i},{text}" for i, text in enumerate(rows))]).encode(encoding))
    if option is not None:
        with pytest.raises(ScoringError, match=r"a\.csv: .*say --encoding"):
            score("text-classifier", source, tmp_path / "out")
    result = score("text-classifier", source, tmp_path / "out", encoding=option, keep=("text",), shard_rows=1)
    assert counts(result) == (3, 0)
    assert [row["input_text"] if "input_text" in row else row["text"] for row in predictions(tmp_path / "out")] == rows


def test_header_in_the_middle_of_a_file_is_rejected(score: Score, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text\n1,the train\nid,text\n2,the train\n")
    assert counts(score("text-classifier", tmp_path / "a.csv", tmp_path / "out")) == (2, 1)
    assert rejects(tmp_path / "out")[0]["reason"] == "repeats the header"


@pytest.mark.parametrize(
    ("write", "options"),
    [
        (lambda frame, path: frame.to_csv(path, index=False), {}),
        (lambda frame, path: frame.to_csv(path), {}),
        (lambda frame, path: pl.from_pandas(frame).write_csv(path), {}),
        (lambda frame, path: duckdb.sql("select * from frame").write_csv(str(path)), {}),
        (lambda frame, path: frame.to_csv(path, index=False, sep=";"), {"delimiter": ";"}),
        (lambda frame, path: frame.to_csv(path, index=False, quoting=csv.QUOTE_ALL), {}),
        (lambda frame, path: frame.to_csv(path, index=False, encoding="utf-16"), {}),
    ],
)
def test_csv_files_of_common_tools(
    write: Callable[[Any, Path], None], options: dict[str, Any], score: Score, tmp_path: Path
) -> None:
    frame = pd.DataFrame({"id": range(len(QUOTED)), "text": QUOTED})
    write(frame, tmp_path / "a.csv")
    assert counts(score("text-classifier", tmp_path / "a.csv", tmp_path / "out", keep=("text",), **options)) == (6, 0)
    assert [row["text"] for row in predictions(tmp_path / "out")] == QUOTED


@pytest.mark.parametrize("option", ["delimiter", "quote", "escape", "encoding"])
def test_option_that_the_format_does_not_have_is_refused(option: str, score: Score, tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "a.parquet", {"text": texts(3)})
    with pytest.raises(ScoringError, match=f"--{option}: files of the format parquet have none"):
        score("text-classifier", source, tmp_path / "out", **{option: "|"})


def test_json_array_is_refused(score: Score, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps([{"text": "the train"}]))
    with pytest.raises(ScoringError, match=r"a\.jsonl: begins with a JSON array, expected an object in each line"):
        score("text-classifier", tmp_path / "a.jsonl", tmp_path / "out")


# Names.


@pytest.mark.parametrize("option", [{"id_column": "idd"}, {"keep": ("nope",)}, {"columns": {"text": "nope"}}])
@pytest.mark.parametrize("form", ["jsonl", "parquet", "csv"])
def test_name_that_no_row_has_is_refused(form: str, option: dict[str, Any], score: Score, tmp_path: Path) -> None:
    write = {"jsonl": write_jsonl, "parquet": write_parquet, "csv": write_csv}[form]
    source = write(tmp_path / f"a.{form}", {"id": range(3), "text": texts(3)})
    with pytest.raises(ScoringError, match=r"no column '(idd|nope)'"):
        score("text-classifier", source, tmp_path / "out", **option)
    assert not (tmp_path / "out").exists()


def test_key_that_only_a_late_row_has_is_kept(score: Score, tmp_path: Path) -> None:
    rows = [{"text": "the train"} for _ in range(5000)] + [{"text": "the train", "note": 7}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    score("text-classifier", tmp_path / "a.jsonl", tmp_path / "out", keep=("note",), shard_rows=4096)
    assert [row["note"] for row in predictions(tmp_path / "out")] == [None] * 5000 + ["7"]


def test_column_given_twice_is_refused_or_rejected(score: Score, tmp_path: Path) -> None:
    table = pa.table([pa.array([1]), pa.array(["a"]), pa.array(["b"])], names=["id", "text", "text"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(ScoringError, match="more than one column 'text'"):
        score("text-classifier", tmp_path / "a.parquet", tmp_path / "out")
    lines = ['{"text": "the train"}', '{"text": "a", "text": "b"}', '{"x": {"a": 1, "a": 2}, "text": "http://a"}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    assert counts(score("text-classifier", tmp_path / "a.jsonl", tmp_path / "out")) == (1, 2)
    assert [row["reason"] for row in rejects(tmp_path / "out")] == [
        "the key 'text' is given twice",
        "the key 'a' is given twice",
    ]


# Values.


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl"])
def test_ids_of_json_are_exact(form: str, score: Score, tmp_path: Path) -> None:
    ids = [
        str(2**128),
        str(2**128 - 1),
        str(-(2**70)),
        "1.10",
        "0.1234567890123456789",
        "-0",
        "1E2",
        "7",
        '"x"',
        "null",
    ]
    ids += ["[1.50, {}]", '{"a": 18446744073709551616}', "true"]
    lines = [f'{{"id": {value}, "text": "the train", "url": "http://x"}}' for value in ids]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    result = score("text-classifier", tmp_path / "a.jsonl", tmp_path / "out", id_column="id", output_format=form)
    assert counts(result) == (len(ids), 0)
    [path] = parts(tmp_path / "out")
    if form == "jsonl":
        found = [line.partition('"id":')[2].partition(',"label"')[0] for line in Path(path).read_text().splitlines()]
        assert [value.replace(" ", "") for value in ids] == found
        return
    if form == "csv":
        with Path(path).open(newline="") as file:
            found = [row["id"] or "null" for row in csv.DictReader(file)]
    else:
        found = [value or "null" for value in pq.read_table(path).column("id").to_pylist()]
    assert found == [value.replace(" ", "").strip('"') for value in ids]


NESTED = pa.list_(pa.struct([("at", pa.timestamp("ns"))]))
FAR = pa.array([253402300800000, -62135596800001, 10**15, 0, None], pa.timestamp("ms"))
VALUES: dict[str, tuple[pa.Array, list[str | None]]] = {
    "ns": (pa.array([1, -1, 1700000000123456789, 0, None], pa.timestamp("ns")), ["1970-01-01 00:00:00.000000001"]),
    "zone": (pa.array([1, 2, 3, 0, None], pa.timestamp("us", "Asia/Tokyo")), ["1970-01-01 00:00:00.000001Z"]),
    "time": (pa.array([1, 2, 86399999999999, 0, None], pa.time64("ns")), ["00:00:00.000000001"]),
    "duration": (pa.array([1500, 2, -3, 0, None], pa.duration("ns")), ["1500 ns"]),
    "date": (pa.array([2932896, 1, 2, 0, None], pa.date32()), ["9999-12-31"]),
    "decimal": (pa.array([Decimal("1.10"), Decimal(2), Decimal("-3.01"), 0, None], pa.decimal128(38, 2)), ["1.10"]),
    "wide": (pa.array([Decimal(10) ** 60, 2, 3, 0, None], pa.decimal256(70, 0)), [str(10**60)]),
    "nested": (pa.array([[{"at": 1}], [], [{"at": None}], [], None], NESTED), []),
    "uint64": (pa.array([2**64 - 1, 2, 3, 0, None], pa.uint64()), [str(2**64 - 1)]),
    "half": (pa.array(np.array([1.5, 2, 3, 0, 4], np.float16)), ["1.5"]),
    "dictionary": (pa.array(["a", "b", "a", "b", None]).dictionary_encode(), ["a"]),
    "bytes": (pa.array([b"\xff\x00", b"", b"a", b"b", None]), ["/wA="]),
}  # fmt: skip


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize("name", VALUES)
def test_kept_values_are_exact(
    name: str, form: str, score: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    for package in ("pandas", "pytz", "tzdata"):
        monkeypatch.setitem(sys.modules, package, None)
    column, first = VALUES[name]
    write_parquet(tmp_path / "a.parquet", {"value": column, "text": texts(5)})
    result = score("text-classifier", tmp_path / "a.parquet", tmp_path / "out", keep=("value",), output_format=form)
    assert counts(result) == (5, 0)
    [path] = parts(tmp_path / "out")
    if form == "parquet":
        kinds = {"half": pa.float32(), "time": pa.string(), "wide": pa.string(), "dictionary": pa.string()}
        expected = column.cast(kinds.get(name, column.type))
        assert pq.read_table(path).column("value").combine_chunks() == expected
        assert len(pl.read_parquet(path)) == len(duckdb.sql(f"from '{path}'").fetchall()) == 5
        return
    content = Path(path).read_text()
    rows = list(csv.DictReader(io.StringIO(content))) if form == "csv" else list(map(json.loads, content.splitlines()))
    assert [str(row["value"]) for row in rows][: len(first)] == first
    assert rows[4]["value"] in {"", None, "4", 4.0}
    if name == "nested":
        value = rows[0]["value"]
        assert (json.loads(value) if form == "csv" else value) == [{"at": "1970-01-01 00:00:00.000000001"}]


def test_time_that_has_no_text_is_one_reject(score: Score, tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "a.parquet", {"at": FAR, "text": texts(5)})
    assert counts(score("text-classifier", source, tmp_path / "p", keep=("at",))) == (5, 0)
    table = pq.read_table(parts(tmp_path / "p")[0])
    assert table.column("at").cast(pa.int64()).to_pylist() == FAR.cast(pa.int64()).to_pylist()
    assert counts(score("text-classifier", source, tmp_path / "j", id_column="at", output_format="jsonl")) == (4, 1)
    [reject] = rejects(tmp_path / "j")
    assert reject["row"] == 2
    assert reject["reason"].startswith("column 'at': the time is too far away to be written as a text")


def test_date_that_python_lacks_is_one_reject_of_parquet_alone(score: Score, tmp_path: Path) -> None:
    days = pa.array([2932897, 2932896, -719163, -719162, None], pa.date32())
    source = write_parquet(tmp_path / "a.parquet", {"day": days, "text": texts(5)})
    assert counts(score("text-classifier", source, tmp_path / "p", keep=("day",))) == (3, 2)
    assert len(pd.read_parquet(parts(tmp_path / "p")[0])) == 3
    assert counts(score("text-classifier", source, tmp_path / "c", keep=("day",), output_format="csv")) == (5, 0)
    assert Path(parts(tmp_path / "c")[0]).read_text().count('"10000-01-01"') == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [float("-inf")]])
def test_number_that_json_lacks_is_one_reject(value: object, score: Score, tmp_path: Path) -> None:
    values = [value, [0.5] if isinstance(value, list) else 0.5, None]
    source = write_parquet(tmp_path / "a.parquet", {"x": values, "text": texts(3)})
    assert counts(score("text-classifier", source, tmp_path / "j", keep=("x",), output_format="jsonl")) == (2, 1)
    assert "JSON has no NaN" in rejects(tmp_path / "j")[0]["reason"]
    assert counts(score("text-classifier", source, tmp_path / "p", keep=("x",))) == (3, 0)


def test_text_that_is_not_utf8_is_one_reject(score: Score, tmp_path: Path) -> None:
    raw = pa.array([b"the train", b"\xff\xfe", b"a b"], pa.binary())
    bad = pa.StringArray.from_buffers(3, raw.buffers()[1], raw.buffers()[2])
    pq.write_table(pa.table({"text": bad, "note": bad}), tmp_path / "a.parquet")
    assert counts(score("text-classifier", tmp_path / "a.parquet", tmp_path / "out", keep=("note",))) == (2, 1)
    assert rejects(tmp_path / "out")[0]["row"] == 1


def test_time_feeds_no_model(score: Score, tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "a.parquet", {"text": VALUES["ns"][0]})
    with pytest.raises(ScoringError, match=r"column 'text' is timestamp\[ns\], and no model reads times or dates"):
        score("text-classifier", source, tmp_path / "out")


# One schema a job.


def drifting(folder: Path, kinds: dict[str, pa.Array]) -> Path:
    folder.mkdir()
    for name, column in kinds.items():
        write_parquet(folder / f"{name}.parquet", {"id": column, "text": texts(len(column))})
    return folder


DRIFTS = {
    "integers": {"a": pa.array([1, 2], pa.int8()), "b": pa.array([2**40], pa.int64()), "c": pa.nulls(2)},
    "signs": {"a": pa.array([1, 2], pa.uint32()), "b": pa.array([-1], pa.int32())},
    "texts": {"a": pa.array(["x"]), "b": pa.array(["y"], pa.large_string()), "c": pa.array(["z"]).dictionary_encode()},
    "floats": {"a": pa.array([0.5], pa.float32()), "b": pa.array([0.1], pa.float64())},
    "times": {"a": pa.array([1], pa.timestamp("ms")), "b": pa.array([1], pa.timestamp("us"))},
    "lists": {"a": pa.array([[1]], pa.list_(pa.int8())), "b": pa.array([[2**40]], pa.list_(pa.int64()))},
    "decimals": {"a": pa.array([Decimal("1.5")]), "b": pa.array([Decimal("100.25")])},
    "nulls first": {"a": pa.nulls(2), "b": pa.array(["x"])},
}


@pytest.mark.parametrize("name", DRIFTS)
def test_every_reader_opens_the_predictions_of_drifting_inputs(name: str, score: Score, tmp_path: Path) -> None:
    source = drifting(tmp_path / "in", DRIFTS[name])
    rows = sum(map(len, DRIFTS[name].values()))
    assert counts(score("text-classifier", source, tmp_path / "out", id_column="id", shard_rows=1)) == (rows, 0)
    folder = str(tmp_path / "out" / "predictions")
    table = pa.dataset.dataset(folder).to_table()
    assert len({str(pq.read_schema(path)) for path in parts(tmp_path / "out")}) == 1
    assert len(pd.read_parquet(folder)) == rows
    assert len(pl.read_parquet(f"{folder}/*.parquet")) == rows
    counted = duckdb.sql(f"select count(id), count(*) from '{folder}/*.parquet'").fetchall()
    assert counted == [(rows - table.column("id").null_count, rows)]
    expected = [value for column in DRIFTS[name].values() for value in column.to_pylist()]
    found = [row["id"] for row in sorted(table.to_pylist(), key=lambda row: (row["file"], row["row"]))]
    assert found == expected


@pytest.mark.parametrize(
    "kinds",
    [
        {"a": pa.array([1]), "b": pa.array(["x"])},
        {"a": pa.array([1]), "b": pa.array([0.5])},
        {"a": pa.array([b"x"]), "b": pa.array(["x"])},
        {"a": pa.array([1], pa.timestamp("us")), "b": pa.array([1], pa.timestamp("us", "UTC"))},
        {"a": pa.array([[1]]), "b": pa.array([1])},
        {"a": pa.array([{"x": 1}]), "b": pa.array([{"y": 1}])},
    ],
)
def test_types_without_a_common_one_are_refused_before_the_first_row(
    kinds: dict[str, pa.Array], score: Score, tmp_path: Path
) -> None:
    source = drifting(tmp_path / "in", kinds)
    with pytest.raises(ScoringError, match=r"b\.parquet: column 'id' is .*, in a\.parquet it is .*"):
        score("text-classifier", source, tmp_path / "out", id_column="id")
    assert not (tmp_path / "out").exists()
    assert counts(score("text-classifier", source, tmp_path / "out")) == (2, 0)


def test_value_that_does_not_fit_the_common_type_is_one_reject(score: Score, tmp_path: Path) -> None:
    kinds = {"a": pa.array([1, 2**64 - 1], pa.uint64()), "b": pa.array([-1], pa.int64())}
    result = score("text-classifier", drifting(tmp_path / "in", kinds), tmp_path / "out", id_column="id")
    assert counts(result) == (2, 1)
    assert "does not fit int64" in rejects(tmp_path / "out")[0]["reason"]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_columns_that_only_one_file_has(form: str, score: Score, tmp_path: Path) -> None:
    folder, write = tmp_path / "in", {"csv": write_csv, "parquet": write_parquet}[form]
    folder.mkdir()
    write(folder / f"a.{form}", {"id": range(2), "text": texts(2)})
    write(folder / f"b.{form}", {"text": texts(2), "id": range(2), "note": texts(2)})
    with pytest.raises(ScoringError, match=rf"b\.{form}: column 'note' is not in a\.{form}, and --keep '\*' copies"):
        score("text-classifier", folder, tmp_path / "out", keep=("*",))
    assert counts(score("text-classifier", folder, tmp_path / "out", keep=("id",))) == (4, 0)
    with pytest.raises(ScoringError, match="no column 'note'"):
        score("text-classifier", folder, tmp_path / "note", keep=("note",))


def test_model_field_that_only_a_later_file_has_is_refused(score: Score, tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"prompt": ["a"]})
    write_parquet(tmp_path / "b.parquet", {"prompt": ["a"], "seed": [7]})
    with pytest.raises(ScoringError, match=r"b\.parquet: column 'seed' is a field of the model, and a\.parquet has no"):
        score("language-model", [tmp_path / "a.parquet", tmp_path / "b.parquet"], tmp_path / "out")


def test_later_column_of_the_name_of_a_field_is_refused_unless_another_is_named(score: Score, tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"body": texts(2)})
    write_parquet(tmp_path / "b.parquet", {"body": texts(2), "text": texts(2)})
    files = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    with pytest.raises(ScoringError, match=r"b\.parquet: column 'text' is a field of the model, and a\.parquet has no"):
        score("text-classifier", files, tmp_path / "out")
    assert counts(score("text-classifier", files, tmp_path / "out", columns={"text": "body"})) == (4, 0)


def test_key_that_the_first_rows_lack_is_rejected_where_all_are_kept(score: Score, tmp_path: Path) -> None:
    rows = [{"text": "the train", "a": 1}] * 5000 + [{"text": "the train", "b": 2}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert counts(score("text-classifier", tmp_path / "a.jsonl", tmp_path / "out", keep=("*",))) == (5000, 1)
    assert "do not have the key 'b': name each column with --keep" in rejects(tmp_path / "out")[0]["reason"]


# Pictures, and what lies beside them.


def test_litter_is_passed_over_and_counted(score: Score, tmp_path: Path) -> None:
    content = png(images(1)[0])
    members = {
        "./a.png": content,
        "./._a.png": b"\0\5\26\7",
        "__MACOSX/._a.png": b"x",
        ".DS_Store": b"x",
        "Thumbs.db": b"x",
        "README": b"x",
        "sub/b.JPE": content,
        ".git/c.png": content,
    }
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.LNKTYPE, "./a.png"
        archive.addfile(link)
    result = score("image-classifier", tmp_path / "a.tar", tmp_path / "tar", id_column="name")
    assert counts(result) == (2, 0)
    assert [row["name"] for row in predictions(tmp_path / "tar")] == ["./a.png", "sub/b.JPE"]
    assert result.summary is not None
    assert result.summary["passed_over"] == {".db": 1, "hidden": 4, "link or device": 1, "no suffix": 1}
    for name, data in members.items():
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    result = score("image-classifier", tmp_path / "folder", tmp_path / "out")
    assert counts(result) == (2, 0)
    assert result.summary is not None
    assert result.summary["passed_over"] == {".db": 1, "hidden": 4, "no suffix": 1}


def test_folder_of_other_files_alone_is_an_error(score: Score, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in (".DS_Store", "Thumbs.db", "_SUCCESS"):
        (tmp_path / "in" / name).touch()
    with pytest.raises(ScoringError, match="--input"):
        score("image-classifier", tmp_path / "in", tmp_path / "out")


# Formulas.


def test_formulas_are_escaped_by_option(score: Score, tmp_path: Path) -> None:
    notes = ["=cmd|' /C calc'!A0", "+1+cmd", "@x", "\tx", "-2", "-2.5e3", "-a", "plain", None]
    source = write_parquet(tmp_path / "a.parquet", {"=note": notes, "n": range(-4, 5), "text": texts(9)})
    options: dict[str, Any] = {"keep": ("=note", "n"), "output_format": "csv"}
    score("text-classifier", source, tmp_path / "out", escape_formulas=True, **options)
    with Path(parts(tmp_path / "out")[0]).open(newline="") as file:
        rows = list(csv.DictReader(file))
    escaped = ["'=cmd|' /C calc'!A0", "'+1+cmd", "'@x", "'\tx", "-2", "-2.5e3", "'-a", "plain", ""]
    assert [row["'=note"] for row in rows] == escaped
    assert [int(row["n"]) for row in rows] == list(range(-4, 5))
    score("text-classifier", source, tmp_path / "raw", **options)
    with Path(parts(tmp_path / "raw")[0]).open(newline="") as file:
        assert [row["=note"] or None for row in csv.DictReader(file)] == notes
    with pytest.raises(ScoringError, match="--escape-formulas: only --output-format csv has formulas"):
        score("text-classifier", source, tmp_path / "other", escape_formulas=True)


def test_hive_partition_without_a_value_is_null(score: Score, tmp_path: Path) -> None:
    for name in ("day=2024-01-01", "day=__HIVE_DEFAULT_PARTITION__"):
        (tmp_path / "in" / name).mkdir(parents=True)
        write_parquet(tmp_path / "in" / name / "a.parquet", {"text": texts(1)})
    score("text-classifier", tmp_path / "in", tmp_path / "out", keep=("day",))
    assert [row["day"] for row in predictions(tmp_path / "out")] == ["2024-01-01", None]


def test_zoned_times_are_read_back_as_the_same_instant(score: Score, tmp_path: Path) -> None:
    at = datetime(2024, 7, 1, 12, tzinfo=UTC)
    source = write_parquet(tmp_path / "a.parquet", {"at": pa.array([at], pa.timestamp("us", "America/New_York"))
                                                    , "text": texts(1)})  # fmt: skip
    score("text-classifier", source, tmp_path / "out", keep=("at",), output_format="jsonl")
    [row] = map(json.loads, Path(parts(tmp_path / "out")[0]).read_text().splitlines())
    assert datetime.fromisoformat(row["at"]) == at


def test_json_folders_that_say_other_things_are_refused(score: Score, tmp_path: Path) -> None:
    for name in ("day=1", "plain"):
        (tmp_path / "in" / name).mkdir(parents=True)
        write_jsonl(tmp_path / "in" / name / "a.jsonl", {"text": texts(1)})
    for names in (("day",), ("*",)):
        with pytest.raises(ScoringError, match=r"plain/a\.jsonl: the folders do not say 'day'"):
            score("text-classifier", tmp_path / "in", tmp_path / "out", keep=names)


def test_rows_of_a_table_count_for_a_model_that_reads_no_column(score: Score, tmp_path: Path) -> None:
    table = write_delta(tmp_path / "t", {"n": range(3)})
    assert counts(score("image-generator", table, tmp_path / "out")) == (3, 0)


def test_unreadable_file_is_named_and_the_job_resumes(score: Score, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in "ab":
        write_parquet(folder / f"{name}.parquet", {"id": range(20), "text": texts(20)})
    content = (folder / "b.parquet").read_bytes()
    (folder / "b.parquet").write_bytes(content[:-9])
    result = score("text-classifier", folder, tmp_path / "out", id_column="id")
    assert (result.summary, result.computed) == (None, 20)
    assert result.failures[0].startswith("b.parquet: ")
    (folder / "b.parquet").write_bytes(content)
    result = score("text-classifier", folder, tmp_path / "out", id_column="id")
    assert (counts(result), result.computed) == ((40, 0), 20)


@pytest.mark.parametrize("kind", ["<f4", "<i2", "<f2"])
def test_kept_arrays_are_exact(kind: str, score: Score, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    pairs = np.arange(6).reshape(3, 2).astype(kind)
    save_file({"image": images(3), "note": pairs}, tmp_path / "a.safetensors")
    score("image-classifier", tmp_path / "a.safetensors", tmp_path / "out", keep=("note",))
    assert [row["note"] for row in predictions(tmp_path / "out")] == [[0, 1], [2, 3], [4, 5]]
