"""Rows that --where and --sample leave out: counted, the others as without, however the job is divided."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.scoring.job import ScoringError
from tests.service.scoring.conftest import Score, predictions, rejects
from tests.service.scoring.inputs import texts, write_csv, write_jsonl, write_parquet

ROWS = 200
COLUMNS: dict[str, Any] = {"text": texts(ROWS), "age": list(range(ROWS))}
WRITERS: dict[str, Any] = {"parquet": write_parquet, "csv": write_csv, "jsonl": write_jsonl}
OPTIONS: dict[str, Any] = {"columns": {"text": "text"}, "keep": ("age",)}


@pytest.mark.parametrize("name", WRITERS)
def test_rows_keep_their_numbers_and_predictions(name: str, score: Score, tmp_path: Path) -> None:
    path = WRITERS[name](tmp_path / f"in.{name}", COLUMNS)
    score("text-classifier", path, tmp_path / "all", **OPTIONS)
    for shard_rows in (7, 1000):
        out = tmp_path / f"out{shard_rows}"
        result = score("text-classifier", path, out, where="age >= 50 and age < 60", shard_rows=shard_rows, **OPTIONS)
        assert result.summary is not None
        counts = {key: result.summary[key] for key in ("rows", "scored", "rejected", "filtered")}
        assert counts == {"rows": 10, "scored": 10, "rejected": 0, "filtered": ROWS - 10}
        assert predictions(out) == predictions(tmp_path / "all")[50:60]
        again = score("text-classifier", path, out, where="age >= 50 and age < 60", shard_rows=shard_rows, **OPTIONS)
        assert (again.computed, again.summary) == (0, result.summary)


@pytest.mark.parametrize("name", WRITERS)
def test_sample_is_the_same_however_the_job_is_divided(name: str, score: Score, tmp_path: Path) -> None:
    path = WRITERS[name](tmp_path / f"in.{name}", COLUMNS)
    found = []
    for i, options in enumerate([{"shard_rows": 7}, {"shard_rows": 1000}, {"sample_seed": 1}]):
        result = score("text-classifier", path, tmp_path / f"out{i}", sample=0.3, **OPTIONS, **options)
        assert result.summary is not None
        assert result.summary["rows"] + result.summary["filtered"] == ROWS
        found.append([row["row"] for row in predictions(tmp_path / f"out{i}")])
    assert found[0] == found[1] != found[2]
    assert 35 < len(found[0]) < 85


def test_samples_of_two_files_differ_and_one_is_all(score: Score, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "in").mkdir(exist_ok=True)
        write_parquet(tmp_path / "in" / f"{name}.parquet", COLUMNS)
    score("text-classifier", tmp_path / "in", tmp_path / "out", sample=0.5)
    rows = {name: [r["row"] for r in predictions(tmp_path / "out") if r["file"][0] == name] for name in "ab"}
    assert rows["a"] != rows["b"]
    result = score("text-classifier", tmp_path / "in", tmp_path / "whole", sample=1.0)
    assert result.summary is not None
    assert (result.summary["rows"], result.summary["filtered"]) == (2 * ROWS, 0)


def test_rows_that_cannot_be_compared_or_read_are_rejected(score: Score, tmp_path: Path) -> None:
    lines = [
        '{"text": "a", "age": 5}',
        "no json",
        '{"text": "a", "age": "old"}',
        '{"text": "a"}',
        '{"text": "", "age": 1}',
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    result = score("text-classifier", tmp_path / "in.jsonl", tmp_path / "out", where="age > 3")
    assert result.summary is not None
    assert [row["row"] for row in predictions(tmp_path / "out")] == [0]
    assert [row["row"] for row in rejects(tmp_path / "out")] == [1, 2]
    assert "cannot be compared with 3" in rejects(tmp_path / "out")[1]["reason"]
    assert result.summary["filtered"] == 2


def test_folders_and_paths_are_columns(score: Score, tmp_path: Path) -> None:
    for year in (2023, 2024):
        folder = tmp_path / "in" / f"year={year}"
        folder.mkdir(parents=True)
        content = [{"doc": {"text": text, "n": i}} for i, text in enumerate(texts(20))]
        pq.write_table(pa.Table.from_pylist(content), folder / "0.parquet")
    options: dict[str, Any] = {"columns": {"text": "doc.text"}, "where": "year >= 2024 and doc.n < 5"}
    score("text-classifier", tmp_path / "in", tmp_path / "out", **options)
    assert [(row["file"], row["row"]) for row in predictions(tmp_path / "out")] == [
        ("year=2024/0.parquet", i) for i in range(5)
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"where": "height > 3"}, "no column 'height'"),
        ({"where": "text.x > 3"}, "no column 'text.x'"),
        ({"where": "age == 'old'"}, "column 'age' is int64 and cannot be compared with 'old'"),
        ({"where": "age ~ 3"}, "--where age ~ 3: no condition such as"),
        ({"sample": 0.0}, "option sample"),
        ({"sample": 1.5}, "option sample"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str, score: Score, tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "in.parquet", COLUMNS)
    with pytest.raises(ScoringError, match=message):
        score("text-classifier", path, tmp_path / "out", **OPTIONS, **options)


def test_later_file_of_another_type_is_refused(score: Score, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_parquet(tmp_path / "in" / "0.parquet", COLUMNS)
    write_parquet(tmp_path / "in" / "1.parquet", {"text": ["a"], "age": [[1]]})
    with pytest.raises(ScoringError, match="column 'age' is list"):
        score("text-classifier", tmp_path / "in", tmp_path / "out", columns={"text": "text"}, where="age > 3")


def test_openai_batch_answers_every_line(score: Score, tmp_path: Path) -> None:
    line = {"custom_id": "a", "url": "/v1/completions", "method": "POST", "body": {"model": "m", "prompt": "a"}}
    (tmp_path / "in.jsonl").write_text(json.dumps(line))
    with pytest.raises(ScoringError, match="every line of an OpenAI batch is answered"):
        score("language-model", tmp_path / "in.jsonl", tmp_path / "out", sample=0.5)
