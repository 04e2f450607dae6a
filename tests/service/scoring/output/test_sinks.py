"""The same table in three formats."""

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.scoring.output.sinks import JSON_TEXT, Sink

PAIR = pa.struct([("label", pa.string()), ("probability", pa.float32())])
SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64()),
        pa.field("text", pa.string()),
        pa.field("note", pa.string(), metadata=JSON_TEXT),
        pa.field("probability", pa.float32()),
        pa.field("top", pa.list_(PAIR)),
        pa.field("image", pa.binary()),
    ]
)
ROWS = [
    {
        "row": i,
        "text": ['plain "quoted", comma', "line\nend", "=1+1", "äöü\u2028", None][i % 5],
        "note": ['"text"', '{"a": 1}', None, "3", '"\\u00e9"'][i % 5],
        "probability": i / 7,
        "top": [{"label": "a", "probability": i / 3}],
        "image": bytes([i % 256, 255, 0]),
    }
    for i in range(50)
]


def write(path: Path, form: str, sizes: list[int]) -> Path:
    begin = 0
    with Sink(path, form) as sink:  # type: ignore[arg-type]
        for size in sizes:
            sink.write(pa.Table.from_pylist(ROWS[begin : begin + size], SCHEMA))
            begin += size
    return path


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl"])
def test_bytes_do_not_depend_on_the_division_into_tables(form: str, tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", form, [50]), write(tmp_path / "b", form, [1, 20, 0, 29])
    assert a.read_bytes() == b.read_bytes()


def test_parquet_sink_writes_every_value(tmp_path: Path) -> None:
    rows = pq.read_table(write(tmp_path / "a", "parquet", [50])).to_pylist()
    expected = pa.Table.from_pylist(ROWS, SCHEMA).to_pylist()
    for row, expected_row, remark in zip(rows, expected, ["text", '{"a": 1}', None, "3", "é"] * 10, strict=True):
        assert row == {**expected_row, "note": remark}


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint16(), pa.int32(), pa.uint64()])
def test_integers_are_delta_encoded(kind: pa.DataType, tmp_path: Path) -> None:
    table = pa.table({"a.b": pa.array([3, None, 100, 5], kind)})
    with Sink(tmp_path / "a", "parquet") as sink:
        sink.write(table)
    assert pq.read_table(tmp_path / "a") == table
    assert "DELTA_BINARY_PACKED" in pq.ParquetFile(tmp_path / "a").metadata.row_group(0).column(0).encodings


@pytest.mark.parametrize("inner", ["x", 0.5, True])
def test_integer_column_may_have_the_path_of_a_nested_leaf(inner: object, tmp_path: Path) -> None:
    table = pa.table({"a.b": [1, 2], "a": [{"b": inner}, None]})
    with Sink(tmp_path / "a", "parquet") as sink:
        sink.write(table)
    assert pq.read_table(tmp_path / "a") == table


def test_csv_sink_writes_every_value(tmp_path: Path) -> None:
    with write(tmp_path / "a", "csv", [50]).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == [row["text"] or "" for row in ROWS]
    assert json.loads(rows[3]["top"]) == [{"label": "a", "probability": 1.0}]
    assert rows[2]["image"] == "Av8A"


def test_jsonl_sink_writes_every_value(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in write(tmp_path / "a", "jsonl", [50]).read_bytes().split(b"\n")[:-1]]
    assert [row["note"] for row in rows] == ["text", {"a": 1}, None, 3, "é"] * 10
    assert rows[0]["image"] == "AP8A"


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl"])
def test_no_rows(form: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a", form, [0])
    if form == "parquet":
        assert pq.read_table(path).num_rows == 0
    if form == "csv":
        assert path.read_text().splitlines() == ['"row","text","note","probability","top","image"']


def test_sink_without_a_table_creates_no_file(tmp_path: Path) -> None:
    assert not write(tmp_path / "a", "csv", []).exists()


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl"])
def test_full_disk_is_an_error(form: str) -> None:
    with pytest.raises(OSError, match=r"[Nn]o space"):
        write(Path("/dev/full"), form, [50])
