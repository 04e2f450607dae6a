"""Lines of an OpenAI batch: found by their keys, and refused when two have one id."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from service.scoring.job import ScoringError
from service.scoring.sources import stream
from tests.service.scoring.conftest import Score
from tests.service.scoring.sources.conftest import Read


def line(custom_id: Any, url: str = "/v1/completions", **body: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": {"model": "tiny-letters", **body}}


def write(path: Path, lines: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in lines))
    return path


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (line("x", url="/v1/embeddings", input="a"), "url: expected /v1/completions or /v1/chat/completions"),
        (line(None, prompt="a"), "custom_id: expected a text, got None"),
        ({"custom_id": "x", "url": "/v1/completions", "body": []}, "body: expected an object, got []"),
        ({**line("x"), "method": "GET"}, "method: expected POST, got 'GET'"),
        ([], "expected a JSON object"),
    ],
)
def test_a_line_that_is_no_request_is_one_fault(bad: Any, reason: str, read: Read, tmp_path: Path) -> None:
    found = read(write(tmp_path / "a.jsonl", [line("a", prompt="a"), bad]), input_format="openai")
    assert [bool(fault) for _, _, fault in found] == [False, True]
    assert str(found[1][2]).startswith(reason)
    assert found[0][1] == {"custom_id": "a", "url": "/v1/completions", "body": {"model": "tiny-letters", "prompt": "a"}}


@pytest.mark.parametrize("files", [1, 2])
@pytest.mark.parametrize("block", [40, 1 << 20])
def test_an_id_that_is_given_twice_is_refused_before_the_first_row(
    files: int, block: int, score: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "BLOCK_BYTES", block)
    lines = [line(f"r{i}", prompt="a") for i in range(5)]
    sources = [write(tmp_path / "a.jsonl", [*lines, {"custom_id": 1}, {"custom_id": 1}])]
    if files == 2:
        sources.append(write(tmp_path / "b.jsonl", [line("new", prompt="a"), line("r3", prompt="b")]))
        place = "b.jsonl, line 2: custom_id 'r3' was given already, at a.jsonl, line 4"
    else:
        write(tmp_path / "a.jsonl", [*lines, line("r3", prompt="b")])
        place = "a.jsonl, line 6: custom_id 'r3' was given already, at a.jsonl, line 4"
    with pytest.raises(ScoringError, match=place):
        score("language-model", sources, tmp_path / "out", request={})
    assert not (tmp_path / "out").exists()


def test_json_lines_with_the_keys_of_a_batch_are_one(score: Score, tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [line("a", prompt="ab", max_tokens=2)])
    score("language-model", source, tmp_path / "out", request={})
    [part] = (tmp_path / "out" / "predictions").glob("*.jsonl")
    assert json.loads(part.read_text())["response"]["body"]["object"] == "text_completion"


def test_another_format_that_is_named_is_used(score: Score, tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [{**line("a"), "prompt": "ab"}])
    score("language-model", source, tmp_path / "out", input_format="jsonl", request={"max_tokens": 2})
    assert list((tmp_path / "out" / "predictions").glob("*.parquet"))


def test_other_models_refuse_a_batch(score: Score, tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [line("a", prompt="ab")])
    with pytest.raises(ScoringError, match="generates no texts"):
        score("text-classifier", source, tmp_path / "out")


def test_columns_cannot_be_named(score: Score, tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [line("a", prompt="ab")])
    with pytest.raises(ScoringError, match="--column prompt: the requests of an OpenAI batch name their fields"):
        score("language-model", source, tmp_path / "out", columns={"prompt": "text"}, request={})


@pytest.mark.parametrize(("encoding", "said"), [("utf-16", None), ("utf-8-sig", None), ("cp1252", "cp1252")])
def test_other_encodings_are_read(encoding: str, said: str | None, score: Score, tmp_path: Path) -> None:
    lines = [line(f"\u00e4{i}", prompt="ab", max_tokens=2) for i in range(3)]
    source = tmp_path / "a.jsonl"
    source.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in lines), encoding=encoding)
    result = score("language-model", source, tmp_path / "out", encoding=said, request={})
    assert result.to_table()["custom_id"].to_pylist() == ["\u00e40", "\u00e41", "\u00e42"]
    source.write_text(source.read_text(encoding=encoding) + json.dumps(line("\u00e41")) + "\n", encoding=encoding)
    with pytest.raises(ScoringError, match=r"line 4: custom_id '\u00e41' was given already, at a\.jsonl, line 2"):
        score("language-model", source, tmp_path / "again", encoding=said, request={})


def test_a_file_that_cannot_be_read_is_named_and_the_others_are_answered(score: Score, tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [line("a", prompt="ab", max_tokens=2)])
    content = gzip.compress("".join(json.dumps(line(f"b{i}", prompt="ab")) + "\n" for i in range(5000)).encode())
    (tmp_path / "b.jsonl.gz").write_bytes(content[:-100])
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz"]
    result = score("language-model", files, tmp_path / "out", request={}, shard_rows=5000)
    assert [failure.partition(":")[0] for failure in result.failures] == ["b.jsonl.gz"]
    assert len(result.predictions) == 1
