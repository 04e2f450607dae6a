"""Lines of an OpenAI batch, supported and unsupported."""

import json
from pathlib import Path
from typing import Any

import pytest

from service.engine.sessions.model import Model
from service.tasks.replay import answer_request_sync
from tests.service.scoring.conftest import Score, predictions, rejects
from tests.service.scoring.inputs import prompts


def line(custom_id: Any, url: str = "/v1/completions", **body: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": {"model": "tiny-letters", **body}}


def write(path: Path, lines: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in lines))
    return path


def test_each_line_gets_the_completion_that_its_body_requests(
    score: Score, models: dict[str, Model], tmp_path: Path
) -> None:
    one, two = prompts(2)
    lines = [
        line("a", prompt=one, max_tokens=5, seed=7, temperature=0.5, stop="z", n=1, stream=False),
        line("b", prompt=two, seed=1, user="x", logprobs=None),
    ]
    score("language-model", write(tmp_path / "a.jsonl", lines), tmp_path / "out", input_format="openai", request={})
    found = predictions(tmp_path / "out")
    requests = [
        {"prompt": one, "max_tokens": 5, "seed": 7, "temperature": 0.5, "stop": ["z"]},
        {"prompt": two, "max_tokens": 16, "seed": 1},
    ]
    for row, custom_id, body in zip(found, "ab", requests, strict=True):
        expected = answer_request_sync(models["language-model"], {"model": "tiny-letters", **body})
        assert row["custom_id"] == custom_id
        assert {name: row[name] for name in ("text", "tokens", "finish_reason")} == expected["completions"][0]
        assert row["seed"] == expected["seed"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (line("x", url="/v1/chat/completions", prompt="a"), "url: expected /v1/completions"),
        (line(None, prompt="a"), "custom_id: expected a text"),
        (line("x", prompt="a", n=2), "body/n: only 1 is supported, got 2"),
        (line("x", prompt="a", frequency_penalty=1), "body: 'frequency_penalty' is not supported"),
        (line("x", prompt="a", temperature="hot"), "request/temperature"),
        (line("x"), "request/prompt"),
        ({"custom_id": "x", "url": "/v1/completions", "body": []}, "body: expected an object"),
    ],
)
def test_unsupported_request_is_rejected_with_a_reason(
    bad: dict[str, Any], reason: str, score: Score, tmp_path: Path
) -> None:
    lines = [line("good", prompt="a", max_tokens=1), bad]
    source = write(tmp_path / "a.jsonl", lines)
    score("language-model", source, tmp_path / "out", input_format="openai", request={})
    assert [row["custom_id"] for row in predictions(tmp_path / "out")] == ["good"]
    assert rejects(tmp_path / "out")[0]["reason"].startswith(reason)
