"""Paths into nested columns: the same predictions and exact values as from flat columns, in every format."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather, orc

from service.scoring.input.nested import has_path, json_value, pick, steps_of, with_paths
from service.scoring.job import ScoringError
from tests.service.scoring.conftest import Score, predictions, rejects, tree
from tests.service.scoring.inputs import images, png, texts
from tests.service.scoring.lake import Iceberg, write_delta

ROWS = 40
BIG = 2**53 + 1
PATHS: dict[str, Any] = {"columns": {"text": "doc.text"}, "id_column": "doc.meta.key", "keep": ("doc.n", "day")}


def rows(*, null: int | None = None) -> list[dict[str, Any]]:
    """One of the rows has no document."""
    found = [
        {"doc": {"text": text, "n": BIG + i, "meta": {"key": f"k{i}", "x": 0}}, "day": i}
        for i, text in enumerate(texts(ROWS))
    ]
    return [{**row, "doc": None} if i == null else row for i, row in enumerate(found)]


def write(folder: Path, name: str, content: list[dict[str, Any]]) -> Path:
    table, path = pa.Table.from_pylist(content), folder / f"in.{name}"
    match name:
        case "parquet":
            pq.write_table(table, path, row_group_size=15)
        case "arrow":
            feather.write_feather(table, path, chunksize=15)
        case "orc":
            orc.write_table(table, path)
        case "delta":
            write_delta(path, {column: table[column] for column in table.schema.names})
        case "iceberg":
            iceberg = Iceberg(folder / "wh", {column: table[column] for column in table.schema.names})
            iceberg.close()
            return Path(iceberg.path)
        case _:
            path.write_text("".join(json.dumps(row) + "\n" for row in content))
    return path


@pytest.mark.parametrize("name", ["parquet", "arrow", "orc", "delta", "iceberg", "jsonl"])
def test_paths_are_scored_and_copied_as_flat_columns(name: str, score: Score, tmp_path: Path) -> None:
    path = write(tmp_path, name, rows(null=7))
    score("text-classifier", path, tmp_path / "out", **PATHS)
    flat = tmp_path / "flat.parquet"
    pq.write_table(pa.table({"text": texts(ROWS)}), flat)
    score("text-classifier", flat, tmp_path / "flat", columns={"text": "text"})
    found, expected = predictions(tmp_path / "out"), predictions(tmp_path / "flat")
    assert [row["row"] for row in found] == [i for i in range(ROWS) if i != 7]
    for row in found:
        i = row["row"]
        assert (row["label"], row["probability"]) == (expected[i]["label"], expected[i]["probability"])
        exact = str if name == "jsonl" else int
        assert (row["doc.n"], row["day"]) == (exact(BIG + i), exact(i))
        assert row["doc.meta.key"] == f"k{i}"
    assert [(row["row"], row["doc.meta.key"]) for row in rejects(tmp_path / "out")] == [(7, None)]


@pytest.mark.parametrize("name", ["parquet", "arrow", "orc", "jsonl"])
def test_column_whose_own_name_has_the_dot_comes_first(name: str, score: Score, tmp_path: Path) -> None:
    content = [{"doc": {"text": "no"}, "doc.text": text} for text in texts(ROWS)]
    score("text-classifier", write(tmp_path, name, content), tmp_path / "out", columns={"text": "doc.text"})
    flat = [{"text": text} for text in texts(ROWS)]
    score("text-classifier", write(tmp_path, "jsonl" if name != "jsonl" else "parquet", flat), tmp_path / "flat")
    found, expected = (predictions(tmp_path / out) for out in ("out", "flat"))
    assert [row["label"] for row in found] == [row["label"] for row in expected]
    assert [row["tokens"] for row in found] == [row["tokens"] for row in expected]


@pytest.mark.parametrize("name", ["parquet", "arrow", "orc", "delta", "iceberg", "jsonl"])
@pytest.mark.parametrize("option", [{"columns": {"text": "doc.body"}}, {"id_column": "doc.meta.key.x"}])
def test_path_that_nothing_has_is_refused_by_name(
    name: str, option: dict[str, Any], score: Score, tmp_path: Path
) -> None:
    path = write(tmp_path, name, rows())
    with pytest.raises(ScoringError, match=r"no column 'doc\.(body|meta\.key\.x)'"):
        score("text-classifier", path, tmp_path / "out", **{"columns": {"text": "doc.text"}, **option})
    assert not (tmp_path / "out").exists()


def test_later_file_without_the_path_is_refused(score: Score, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pq.write_table(pa.Table.from_pylist(rows()), tmp_path / "in" / "0.parquet")
    pq.write_table(pa.Table.from_pylist([{"doc": {"text": "a"}, "day": 0}]), tmp_path / "in" / "1.parquet")
    with pytest.raises(ScoringError, match=r"1.parquet: no column 'doc.meta.key'"):
        score("text-classifier", tmp_path / "in", tmp_path / "out", **PATHS)


def test_types_of_paths_widen_over_files(score: Score, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for i, kind in enumerate([pa.int8(), pa.int64()]):
        doc = pa.array([{"text": "the train", "n": i}], pa.struct({"text": pa.string(), "n": kind}))
        pq.write_table(pa.table({"doc": doc}), tmp_path / "in" / f"{i}.parquet")
    score("text-classifier", tmp_path / "in", tmp_path / "out", columns={"text": "doc.text"}, keep=("doc.n",))
    parts = sorted((tmp_path / "out" / "predictions").iterdir())
    assert {str(pq.read_schema(part).field("doc.n").type) for part in parts} == {"int64"}
    assert [row["doc.n"] for row in predictions(tmp_path / "out")] == [0, 1]


def test_parquet_reads_and_hashes_only_the_leaves(score: Score, tmp_path: Path) -> None:
    """Bytes of another leaf may change: the shards stay the same."""
    outputs = []
    for x in (0, 1):
        content = [
            {**row, "doc": {**row["doc"], "meta": {**row["doc"]["meta"], "x": x, "blob": "b" * 50}}} for row in rows()
        ]
        path = write(tmp_path, "parquet", content)
        out = tmp_path / f"out{x}"
        score("text-classifier", path, out, **PATHS)
        outputs.append({name: part for name, part in tree(out).items() if name.startswith("_ledger/shards/")})
    assert outputs[0] == outputs[1]


def test_images_of_a_hub_are_read_by_their_path(score: Score, tmp_path: Path) -> None:
    content = [{"image": {"bytes": png(image), "path": f"{i}.png"}, "label": i} for i, image in enumerate(images(20))]
    pq.write_table(pa.Table.from_pylist(content), tmp_path / "in.parquet")
    options = {"columns": {"image": "image.bytes"}, "id_column": "image.path", "keep": ("label",)}
    result = score("image-classifier", tmp_path / "in.parquet", tmp_path / "out", **options)
    assert result.summary is not None
    assert (result.summary["scored"], result.summary["rejected"]) == (20, 0)
    assert [row["image.path"] for row in predictions(tmp_path / "out")] == [f"{i}.png" for i in range(20)]


def test_keep_all_copies_nested_columns_whole(score: Score, tmp_path: Path) -> None:
    path = write(tmp_path, "parquet", rows())
    score("text-classifier", path, tmp_path / "out", **{**PATHS, "keep": ("*",)})
    assert [row["doc"] for row in predictions(tmp_path / "out")] == [row["doc"] for row in rows()]


def test_names_inside_may_have_dots() -> None:
    schema = pa.schema(
        [("a", pa.struct([("b.c", pa.int8()), ("b", pa.struct([("c", pa.string())]))])), ("a.b", pa.int8())]
    )
    assert steps_of(schema, "a.b") == ("a.b",)
    assert steps_of(schema, "a.b.c") == ("a", "b.c")
    assert steps_of(schema, "a.b.d") is None
    assert with_paths(schema, ["a.b.c", "a.b", "x"]).names == ["a", "a.b", "a.b.c"]


def test_value_inside_of_a_null_is_null() -> None:
    kind = pa.struct([("x", pa.int8())])
    column = pa.StructArray.from_arrays(
        [pa.array([1, 2, 3], pa.int8())], fields=list(kind), mask=pa.array([False, True, False])
    )
    batch = pa.record_batch({"s": column})
    assert pick(batch.slice(1), ["s.x"]).column(0).to_pylist() == [None, 3]


def test_paths_of_json_objects() -> None:
    content = {"a": {"b": {"c": None}, "b.c": 1}, "a.b": {"d": 2}, "l": [{"x": 1}]}
    assert json_value(content, "a.b.c") == 1
    assert json_value(content, "a.b.d") == 2
    assert has_path({"a": {"b": None}}, "a.b")
    assert not has_path(content, "l.x")
    assert json_value({"a": 1}, "a.b", "default") == "default"
