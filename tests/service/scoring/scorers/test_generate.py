"""Prompts that share a request, bad prompts, and images."""

from typing import Any

import pytest

from service.engine.sessions.model import Model
from service.errors import EkibenError
from service.scoring.input.rows import Rows
from service.scoring.scorers.generate import GenerateScorer
from service.tasks.generate import generate
from tests.service.bundles import CONTEXT
from tests.service.scoring.inputs import prompts


def score(models: dict[str, Model], family: str, request: dict[str, Any], **columns: Any) -> Any:
    scorer = GenerateScorer(models[family], {name: name for name in columns}, request)
    try:
        return scorer.score(Rows(numbers=range(len(next(iter(columns.values())))), columns=columns))
    finally:
        scorer.close()


def test_bad_prompt_rejects_only_its_own_row(models: dict[str, Model]) -> None:
    given: list[Any] = [*prompts(3), None, "", 7, ["a"], "a" * 200, *prompts(3)]
    found = score(models, "language-model", {"max_tokens": 4}, prompt=given)
    assert list(found.indexes) == [0, 1, 2, 8, 9, 10]
    assert found.columns["text"].to_pylist()[:3] == found.columns["text"].to_pylist()[3:]
    assert all(found.faults[i].startswith("request/prompt") for i in range(3, 8))


def test_prompts_share_a_request_and_get_the_completions_of_separate_requests(
    models: dict[str, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    async def counted(model: Model, runner: Any, request: Any, context: Any) -> Any:
        sizes.append(len(request.prompt))
        return await generate(model, runner, request, context)

    monkeypatch.setattr("service.scoring.scorers.generate.generate", counted)
    given = ["the ", "a" * (CONTEXT - 7)]
    batched = score(models, "language-model", {}, prompt=given)
    assert sizes == [2]
    single = [score(models, "language-model", {}, prompt=[prompt]).columns for prompt in given]
    assert batched.columns["text"].to_pylist() == [columns["text"][0].as_py() for columns in single]
    assert batched.columns["tokens"].to_pylist() == [64, 7]


def test_row_columns_override_the_request(models: dict[str, Model]) -> None:
    given = prompts(1) * 4
    found = score(
        models, "language-model", {"max_tokens": 4}, prompt=given, seed=["1", None, 2, "x"], max_tokens=[1, 2, 3, 4]
    )
    assert found.columns["seed"].to_pylist() == [1, 0, 2]
    assert found.columns["tokens"].to_pylist() == [1, 2, 3]
    assert "request/seed" in found.faults[3]


def test_logprobs_are_a_column_if_requested(models: dict[str, Model]) -> None:
    found = score(models, "language-model", {"max_tokens": 3, "logprobs": True}, prompt=prompts(2))
    assert [len(row) for row in found.columns["logprobs"].to_pylist()] == [3, 3]


def test_images_without_seeds_differ(models: dict[str, Model]) -> None:
    scorer = GenerateScorer(models["image-generator"], {}, {"seed": 5})
    found = scorer.score(Rows(numbers=[3, 4], columns={"n": ["a", "b"]}))
    scorer.close()
    assert found.columns["seed"].to_pylist() == [8, 9]
    assert len(set(found.columns["image"].to_pylist())) == 2


@pytest.mark.parametrize("setting", [{"temperature": "hot"}, {"nonsense": 1}])
def test_invalid_request_field_rejects_rows_with_its_name(setting: dict[str, Any], models: dict[str, Model]) -> None:
    found = score(models, "language-model", setting, prompt=prompts(2))
    assert len(found.indexes) == 0
    assert f"request/{next(iter(setting))}" in found.faults[0]


def test_engine_error_is_raised_and_rejects_no_row(models: dict[str, Model], monkeypatch: pytest.MonkeyPatch) -> None:
    async def overloaded(*_: Any) -> None:
        raise EkibenError("overloaded", "too much to do")

    monkeypatch.setattr("service.scoring.scorers.generate.generate", overloaded)
    with pytest.raises(EkibenError, match="too much to do"):
        score(models, "language-model", {"max_tokens": 1}, prompt=prompts(2))
