"""Prompts in groups, alone, and refused."""

from typing import Any

import pytest

from service.engine.sessions.model import Model
from service.errors import EkibenError
from service.scoring.rows import Rows
from service.scoring.scorers.generate import GenerateScorer
from tests.service.bundles import CONTEXT
from tests.service.scoring.inputs import prompts


def score(models: dict[str, Model], family: str, request: dict[str, Any], **columns: Any) -> Any:
    scorer = GenerateScorer(models[family], {name: name for name in columns}, request)
    try:
        return scorer.score(Rows(numbers=range(len(next(iter(columns.values())))), columns=columns))
    finally:
        scorer.close()


def test_a_bad_prompt_fails_alone(models: dict[str, Model]) -> None:
    given: list[Any] = [*prompts(3), None, "", 7, ["a"], "a" * 200, *prompts(3)]
    found = score(models, "language-model", {"max_tokens": 4}, prompt=given)
    assert list(found.kept) == [0, 1, 2, 8, 9, 10]
    assert found.columns["text"].to_pylist()[:3] == found.columns["text"].to_pylist()[3:]
    assert all(found.faults[i].startswith("request/prompt") for i in range(3, 8))


def test_prompts_of_any_length_travel_together_and_get_what_they_get_alone(
    models: dict[str, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    ask = GenerateScorer._ask

    def counted(scorer: GenerateScorer, body: dict[str, Any]) -> dict[str, Any]:
        sizes.append(len(body["prompt"]))
        return ask(scorer, body)

    monkeypatch.setattr(GenerateScorer, "_ask", counted)
    given = ["the ", "a" * (CONTEXT - 7)]
    together = score(models, "language-model", {}, prompt=given)
    assert sizes == [2]
    alone = [score(models, "language-model", {}, prompt=[prompt]).columns for prompt in given]
    assert together.columns["text"].to_pylist() == [columns["text"][0].as_py() for columns in alone]
    assert together.columns["tokens"].to_pylist() == [64, 7]


def test_rows_with_their_own_settings_get_them(models: dict[str, Model]) -> None:
    given = prompts(1) * 4
    found = score(
        models, "language-model", {"max_tokens": 4}, prompt=given, seed=["1", None, 2, "x"], max_tokens=[1, 2, 3, 4]
    )
    assert found.columns["seed"].to_pylist() == [1, 0, 2]
    assert found.columns["tokens"].to_pylist() == [1, 2, 3]
    assert "request/seed" in found.faults[3]


def test_log_probabilities_are_a_column_if_asked(models: dict[str, Model]) -> None:
    found = score(models, "language-model", {"max_tokens": 3, "logprobs": True}, prompt=prompts(2))
    assert [len(row) for row in found.columns["logprobs"].to_pylist()] == [3, 3]


def test_pictures_without_seeds_differ(models: dict[str, Model]) -> None:
    scorer = GenerateScorer(models["image-generator"], {}, {"seed": 5})
    found = scorer.score(Rows(numbers=[3, 4], columns={"n": ["a", "b"]}))
    scorer.close()
    assert found.columns["seed"].to_pylist() == [8, 9]
    assert len(set(found.columns["image"].to_pylist())) == 2


@pytest.mark.parametrize("setting", [{"temperature": "hot"}, {"nonsense": 1}])
def test_a_setting_that_is_no_good_rejects_rows_by_name(setting: dict[str, Any], models: dict[str, Model]) -> None:
    found = score(models, "language-model", setting, prompt=prompts(2))
    assert len(found.kept) == 0
    assert f"request/{next(iter(setting))}" in found.faults[0]


def test_trouble_of_the_engine_is_no_fault_of_a_row(models: dict[str, Model], monkeypatch: pytest.MonkeyPatch) -> None:
    async def overloaded(*_: Any) -> None:
        raise EkibenError("overloaded", "too much to do")

    monkeypatch.setattr("service.scoring.scorers.generate.generate", overloaded)
    with pytest.raises(EkibenError, match="too much to do"):
        score(models, "language-model", {"max_tokens": 1}, prompt=prompts(2))
