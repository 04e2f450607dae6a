"""Each line of an OpenAI batch is answered once, in OpenAI's format: with a response, or in the error file."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from service.scoring.job import ScoringError
from tests.service.scoring.conftest import Score, tree
from tests.service.scoring.inputs import prompts
from tests.service.scoring.sources.text.test_openai import line, write


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for part in sorted(folder.glob("*.jsonl")) for text in part.read_text().splitlines()]


def test_every_line_is_answered_once_and_two_runs_write_equal_bytes(score: Score, tmp_path: Path) -> None:
    some = [line(f"r{i}", prompt=prompt, max_tokens=3, seed=i) for i, prompt in enumerate(prompts(40))]
    some[7]["body"]["temperature"] = "hot"
    some[21] = line("r21", url="/v1/chat/completions", messages=[{"role": "user", "content": "a"}])
    some[33]["url"] = "/v1/embeddings"
    source = write(tmp_path / "a.jsonl", some)
    with source.open("a") as file:
        file.write("{not json}\n\n")
    for name in ("out", "again"):
        result = score("language-model", source, tmp_path / name, request={})
        assert result.failures == ()
    assert result.summary is not None
    assert (result.summary["scored"], result.summary["rejected"]) == (37, 4)
    assert tree(tmp_path / "out") == tree(tmp_path / "again")
    answers, errors = lines_of(tmp_path / "out" / "predictions"), lines_of(tmp_path / "out" / "errors")
    assert Counter(row["custom_id"] for row in answers + errors) == Counter({f"r{i}": 1 for i in range(40)} | {None: 1})
    assert len({row["id"] for row in answers + errors}) == 41
    assert all(row.keys() == {"id", "custom_id", "response", "error"} for row in answers + errors)
    assert all(row["error"] is None and row["response"]["status_code"] == 200 for row in answers)
    assert {row["response"]["body"]["created"] for row in answers} == {0}
    by_id = {row["custom_id"]: row for row in errors}
    assert by_id["r7"]["response"]["status_code"] == 400
    assert by_id["r7"]["response"]["body"]["error"]["param"] == "temperature"
    assert by_id["r21"]["response"]["body"]["error"]["code"] == "wrong-task"  # the model has no chat template
    assert by_id["r33"]["response"] is None
    assert by_id["r33"]["error"]["message"].startswith("url: expected")
    assert by_id[None]["error"] == {
        "code": "invalid_request", "message": by_id[None]["error"]["message"], "line": 41,
    }  # fmt: skip
    assert not (tmp_path / "out" / "rejects").exists() or not list((tmp_path / "out" / "rejects").iterdir())


def test_copied_columns_are_refused_in_openai_format(score: Score, tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [line("a", prompt="a")])
    with pytest.raises(ScoringError, match="--keep, --partition-by: OpenAI's output has no place"):
        score("language-model", source, tmp_path / "out", keep=["url"], request={})
