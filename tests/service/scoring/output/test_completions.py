"""An OpenAI batch is answered in OpenAI's format."""

import json
from pathlib import Path

import pytest

from service.engine.sessions.model import Model
from service.scoring.job import ScoringError
from service.tasks.replay import answer_request_sync
from tests.service.scoring.conftest import Score, rejects, tree
from tests.service.scoring.inputs import prompts
from tests.service.scoring.sources.test_openai import line, write


def test_each_line_is_answered_in_openai_format(score: Score, models: dict[str, Model], tmp_path: Path) -> None:
    one, two = prompts(2)
    lines = [
        line("a", prompt=one, max_tokens=5, seed=7, logprobs=1),
        line("no", prompt=one, n=2),
        line("b", prompt=two, max_tokens=3, seed=1),
    ]
    source = write(tmp_path / "a.jsonl", lines)
    for name in ("out", "again"):
        score("language-model", source, tmp_path / name, input_format="openai", output_format="jsonl", request={})
    assert tree(tmp_path / "out") == tree(tmp_path / "again")
    [part] = (tmp_path / "out" / "predictions").iterdir()
    found = [json.loads(text) for text in part.read_text().splitlines()]
    assert [row["custom_id"] for row in found] == ["a", "b"]
    assert len({row["id"] for row in found}) == 2
    for row, (prompt, count, seed) in zip(found, [(one, 5, 7), (two, 3, 1)], strict=True):
        request = {"model": "tiny-letters", "prompt": prompt, "max_tokens": count, "seed": seed, "logprobs": True}
        [expected] = answer_request_sync(models["language-model"], request)["completions"]
        assert row.keys() == {"id", "custom_id", "response", "error"}
        assert (row["error"], row["response"]["status_code"]) == (None, 200)
        body = row["response"]["body"]
        assert (body["object"], body["model"]) == ("text_completion", "tiny-letters")
        [choice] = body["choices"]
        assert (choice["text"], choice["finish_reason"]) == (expected["text"], expected["finish_reason"])
        tokenizer = models["language-model"].tokenizer
        assert tokenizer is not None
        prompt_tokens = len(tokenizer.encode(prompt).ids)
        assert (prompt_tokens, expected["tokens"]) > (0, 0)
        assert body["usage"] == {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": expected["tokens"],
            "total_tokens": prompt_tokens + expected["tokens"],
        }
        if seed == 1:
            assert choice["logprobs"] is None
            continue
        assert choice["logprobs"]["token_logprobs"] == [entry["logprob"] for entry in expected["logprobs"]]
        starts = choice["logprobs"]["text_offset"]
        for token, start in zip(choice["logprobs"]["tokens"], starts, strict=True):
            assert choice["text"][start:].startswith(token)
    assert [row["custom_id"] for row in rejects(tmp_path / "out")] == ["no"]


def test_copied_columns_are_refused_in_openai_format(score: Score, tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [line("a", prompt="a")])
    with pytest.raises(ScoringError, match="--keep: OpenAI's output has no place"):
        score(
            "language-model",
            source,
            tmp_path / "out",
            input_format="openai",
            output_format="jsonl",
            keep=["prompt"],
            request={},
        )
