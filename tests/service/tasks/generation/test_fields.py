"""The fields that all routes of generation share."""

from typing import Any

import pytest

from service.engine.sessions.model import Model
from service.errors import EkibenError
from service.tasks.generation.fields import (
    MAX_BIASED_TOKENS,
    SamplingFields,
    check_max_tokens,
    read_prompts,
    read_sampling,
    read_stops,
)
from tests.service.bundles import CONTEXT, LETTERS

VALUES = {
    "temperature": 0.5, "top_k": 3, "top_p": 0.25, "min_p": 0.125, "repetition_penalty": 1.5, "presence_penalty": -2.0,
    "frequency_penalty": 2.0, "min_tokens": 4, "logit_bias": {"0": -100.0, "28": 100.0},
}  # fmt: skip


def test_every_field_reaches_the_engine(models: dict[str, Model]) -> None:
    manifest = models["language-model"].manifest
    sampling = read_sampling(SamplingFields(model="m", **VALUES), 2**64 - 1, manifest)  # type: ignore[arg-type]
    expected: dict[str, Any] = {**VALUES, "seed": 2**64 - 1, "logit_bias": {0: -100.0, 28: 100.0}}
    assert {name: getattr(sampling, name) for name in expected} == expected
    assert set(VALUES) == set(SamplingFields.model_fields) - {"model"}


def test_the_defaults_change_no_probability(models: dict[str, Model]) -> None:
    sampling = read_sampling(SamplingFields(model="m"), 1, models["language-model"].manifest)
    assert (sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p) == (1, 0, 1, 0)
    assert (sampling.repetition_penalty, sampling.presence_penalty, sampling.frequency_penalty) == (1, 0, 0)
    assert (sampling.logit_bias, sampling.min_tokens) == ({}, 0)


@pytest.mark.parametrize("token", ["29", "-1", "1.0", "", "٣", "1" * 30])
def test_a_bias_is_for_a_token_of_the_model(token: str, models: dict[str, Model]) -> None:
    fields = SamplingFields(model="m", logit_bias={token: 1.0})
    with pytest.raises(EkibenError, match=f"expected a token id of 0 to {len(LETTERS) - 1}"):
        read_sampling(fields, 1, models["language-model"].manifest)


def test_the_number_of_biases_is_limited(models: dict[str, Model]) -> None:
    biases = {str(i): 1.0 for i in range(MAX_BIASED_TOKENS + 1)}
    with pytest.raises(EkibenError, match=f"at most {MAX_BIASED_TOKENS} tokens"):
        read_sampling(SamplingFields(model="m", logit_bias=biases), 1, models["language-model"].manifest)


def test_prompts_have_pointers(models: dict[str, Model]) -> None:
    manifest = models["language-model"].manifest
    assert read_prompts("a", manifest) == {"/prompt": "a"}
    assert read_prompts(["a", "b"], manifest) == {"/prompt/0": "a", "/prompt/1": "b"}
    assert read_prompts([1, 2], manifest, takes_ids=True) == {"/prompt": [1, 2]}
    assert read_prompts([[1], "b"], manifest, takes_ids=True) == {"/prompt/0": [1], "/prompt/1": "b"}
    # Without token ids, a number is a prompt that is no text, which the tokenizer refuses.
    assert read_prompts([1, 2], manifest) == {"/prompt/0": 1, "/prompt/1": 2}


def test_stops_may_be_as_long_as_the_limit() -> None:
    assert read_stops(["a" * 64]) == ("a" * 64,)


def test_max_tokens_may_fill_the_context(models: dict[str, Model]) -> None:
    manifest = models["language-model"].manifest
    check_max_tokens(CONTEXT - 4, 4, manifest, pointer="/x", minimum=1)
    with pytest.raises(EkibenError, match=f"/x: expected 1 to {CONTEXT - 4}"):
        check_max_tokens(CONTEXT - 3, 4, manifest, pointer="/x", minimum=1)
