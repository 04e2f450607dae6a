"""The answers to an OpenAI batch are those of the service's routes."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from service.engine.runner import untimed_runner
from service.engine.sessions.model import Model
from service.scoring import execution, run
from service.scoring.job import ScoringError
from service.scoring.model import load_bundle
from service.tasks.openai.chat import ChatRequest, read_chat
from service.tasks.openai.completions import CompletionRequest, read_completion
from service.tasks.openai.fields import engine_seed, parse_fields
from tests.service.chat_bundle import NAME as CHAT
from tests.service.scoring.conftest import Score, predictions, run_here
from tests.service.scoring.inputs import prompts
from tests.service.scoring.output.test_completions import lines_of
from tests.service.scoring.sources.text.test_openai import line, write


def answer(model: Model, url: str, body: dict[str, Any]) -> dict[str, Any]:
    """What the route answers, without what it takes from a clock or at random."""
    fields_type, read = (ChatRequest, read_chat) if "chat" in url else (CompletionRequest, read_completion)

    async def respond() -> dict[str, Any]:
        runner = untimed_runner()
        try:
            fields: Any = parse_fields(fields_type, body)
            context = runner.new_context()
            parsed = await read(model, runner, fields, engine_seed(fields), context)  # type: ignore[operator]
            return await parsed.answer(runner, context)
        finally:
            runner.close()

    return {name: value for name, value in asyncio.run(respond()).items() if name not in {"id", "created"}}


BODIES: list[dict[str, Any]] = [
    {"max_tokens": 5, "seed": 7, "temperature": 0.5, "stop": "z", "n": 1, "stream": False},
    {"seed": 1, "user": "x", "logprobs": None},
    {"seed": 2, "n": 3, "max_tokens": 4, "logprobs": 2},
    {"seed": 3, "best_of": 2, "echo": True, "max_tokens": 4, "frequency_penalty": 1},
]


def test_each_request_gets_the_answer_of_its_route(score: Score, models: dict[str, Model], tmp_path: Path) -> None:
    lines = [
        line(str(i), prompt=prompt, **body) for i, (prompt, body) in enumerate(zip(prompts(4), BODIES, strict=True))
    ]
    score("language-model", write(tmp_path / "a.jsonl", lines), tmp_path / "out", request={})
    found = lines_of(tmp_path / "out" / "predictions")
    assert [row["custom_id"] for row in found] == ["0", "1", "2", "3"]
    for row, request in zip(found, lines, strict=True):
        body = row["response"]["body"]
        body.pop("created")
        assert body.pop("id") == f"cmpl-{row['response']['request_id']}"
        assert body == answer(models["language-model"], request["url"], request["body"])


def test_chats_are_answered(served_bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(execution.ENGINES, "here", run_here)
    folder = served_bundles / CHAT / (served_bundles / CHAT / "current").read_text().strip()
    messages = [{"role": "user", "content": "ab"}]
    lines = [
        line("chat", url="/v1/chat/completions", messages=messages, max_tokens=6, temperature=0, seed=1),
        line("text", prompt="ab", max_tokens=3, temperature=0),
    ]
    source = write(tmp_path / "a.jsonl", lines)
    result = run.score(CHAT, [source], tmp_path / "out", bundles=served_bundles, engine="here", device="cpu")  # type: ignore[arg-type]
    assert result.failures == ()
    chat, text = lines_of(tmp_path / "out" / "predictions")
    body = chat["response"]["body"]
    assert body["id"].startswith("chatcmpl-")
    expected = answer(load_bundle(folder, "cpu"), lines[0]["url"], {**lines[0]["body"], "model": CHAT})
    assert {name: value for name, value in body.items() if name not in {"id", "created"}} == expected
    assert text["response"]["body"]["object"] == "text_completion"


def test_a_request_without_a_seed_has_that_of_the_job(score: Score, models: dict[str, Model], tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [line("a", prompt="ab", max_tokens=8)])
    score("language-model", source, tmp_path / "out", request={"seed": 5})
    [row] = lines_of(tmp_path / "out" / "predictions")
    body = {"model": "tiny-letters", "prompt": "ab", "max_tokens": 8, "seed": 5}
    assert row["response"]["body"]["choices"] == answer(models["language-model"], "/v1/completions", body)["choices"]


def test_a_table_has_the_text_and_the_whole_answer(score: Score, tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [line("a", prompt="ab", max_tokens=4, seed=1)])
    for name in ("out", "again"):
        score("language-model", source, tmp_path / name, output_format="parquet", request={})
    assert predictions(tmp_path / "out") == predictions(tmp_path / "again")
    [row] = predictions(tmp_path / "out")
    [choice] = json.loads(row["response"])["choices"]
    assert (row["custom_id"], row["text"], row["finish_reason"]) == ("a", choice["text"], choice["finish_reason"])


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"prompt": "a", "temperature": "hot"}, "body/temperature"),
        ({}, "body/prompt"),
        ({"prompt": "a", "stream": True}, "body/stream: a batch has no streams"),
        ({"prompt": "a", "surprise": 1}, "body/surprise: unknown field"),
    ],
)
def test_a_request_that_the_route_refuses_is_an_error(
    body: dict[str, Any], reason: str, score: Score, tmp_path: Path
) -> None:
    source = write(tmp_path / "a.jsonl", [line("good", prompt="a", max_tokens=1), line("x", **body)])
    score("language-model", source, tmp_path / "out", request={})
    [error] = lines_of(tmp_path / "out" / "errors")
    message = error["response"]["body"]["error"]["message"]
    assert error["response"]["status_code"] == 400
    assert reason.removeprefix("body/").partition(":")[0] in message


@pytest.mark.parametrize(
    ("request_fields", "reason"),
    [({"logprobs": True}, "--set logprobs"), ({"n": 2}, "--set n"), ({"temperature": 3}, "--set temperature")],
)
def test_options_that_do_not_hold_for_all_requests_are_refused(
    request_fields: dict[str, Any], reason: str, score: Score, tmp_path: Path
) -> None:
    source = write(tmp_path / "a.jsonl", [line("a", prompt="a")])
    with pytest.raises(ScoringError, match=reason):
        score("language-model", source, tmp_path / "out", request=request_fields)
