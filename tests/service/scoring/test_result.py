"""The result of a job, and errors in the words of Python."""

from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pytest

from service.scoring.job import ScoringError
from service.scoring.result import JobFailedError, in_python
from tests.service.scoring.conftest import Score, predictions
from tests.service.scoring.inputs import texts, write_jsonl

MakeInput = Callable[[str, int], tuple[str, Path]]


@pytest.mark.parametrize("sink", ["parquet", "csv", "jsonl"])
def test_a_result_gives_its_files_and_a_table(sink: str, make_input: MakeInput, score: Score, tmp_path: Path) -> None:
    family, source = make_input("csv", 40)
    result = score(family, source, tmp_path / "out", output_format=sink, check=True)
    assert [PurePosixPath(path).name for path in result.predictions] == [
        f"part-00000-00000{i}.{sink}" for i in range(3)
    ]
    assert result.rejects == []
    table = result.to_table()
    assert table.num_rows == 40
    if sink == "parquet":
        assert table.to_pylist() == predictions(tmp_path / "out")
    assert table["row"].to_pylist() == list(range(40))


def test_an_empty_result_is_an_empty_table(score: Score, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", {"text": [None]})
    result = score("text-classifier", source, tmp_path / "out")
    assert result.to_table().num_rows == 0
    assert len(result.rejects) == 1


@pytest.mark.parametrize(("max_rejects", "fails"), [(0.0, True), (0.19, True), (0.2, False)])
def test_rejects_above_the_allowed_share_are_an_error(
    max_rejects: float, fails: bool, score: Score, tmp_path: Path
) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", {"text": [*texts(8), None, None]})
    options = {"check": True, "max_rejects": max_rejects}
    if not fails:
        assert score("text-classifier", source, tmp_path / "out", **options).reject_share == 0.2
        return
    with pytest.raises(JobFailedError, match=f"2 of 10 rows were rejected, more than max_rejects={max_rejects:g}") as e:
        score("text-classifier", source, tmp_path / "out", **options)
    assert e.value.result.summary is not None
    assert len(e.value.result.predictions) == 1


def test_failures_are_an_error(score: Score, tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(b"no gzip")
    (tmp_path / "b.csv").write_text("text\nab\n")
    with pytest.raises(ScoringError, match=r"a\.csv\.gz: "):
        score("text-classifier", [tmp_path / "a.csv.gz", tmp_path / "b.csv"], tmp_path / "out", check=True)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("--workers 0: expected at least 1", "workers 0: expected at least 1"),
        ("--shard-rows 0: no", "shard_rows 0: no"),
        ("--input x: nothing there", "inputs x: nothing there"),
        ("pass --column text=NAME; columns: 'a'", "pass columns={\"text\": NAME}; columns: 'a'"),
        ("--set top_k: the options", "request top_k: the options"),
        ("choose one with --input-format", "choose one with input_format"),
        ("--no-header and --id", "header and id_column"),
        ("a--b and a - b", "a--b and a - b"),
    ],
)
def test_messages_name_parameters(message: str, expected: str) -> None:
    assert in_python(message) == expected


def test_errors_of_score_name_parameters(score: Score, tmp_path: Path) -> None:
    with pytest.raises(ScoringError, match=r"^inputs .*: nothing there to score"):
        score("text-classifier", tmp_path / "nothing.csv", tmp_path / "out", check=True)


def test_a_table_is_an_input(score: Score, tmp_path: Path) -> None:
    table = pa.table({"text": texts(30), "n": range(30)})
    first = score("text-classifier", table, tmp_path / "a", keep=["n"], check=True)
    chunked = pa.concat_tables([table.slice(i, 7) for i in range(0, 30, 7)])
    again = score("text-classifier", chunked, tmp_path / "a", keep=["n"], check=True)
    assert (first.computed, again.computed) == (30, 0)
    assert first.to_table()["n"].to_pylist() == list(range(30))
    assert set(first.to_table()["file"].to_pylist()) == {"table.arrow"}
