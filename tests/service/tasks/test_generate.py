"""Request and seed determine the answer; every parameter has its documented effect or is refused."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.engine.runner import Runner
from service.engine.sessions.model import Model
from service.errors import EkibenError
from service.tasks.generate import EXAMPLE, GenerateRequest
from service.tasks.generation.fields import MAX_STOPS
from service.tasks.generation.latents import MAX_SEED
from service.tasks.replay import answer_request
from tests.service.bundles import CONTEXT, NAMES
from tests.service.poisoned import NAN_NAMES, read_model, write_poisoned_bundle

RunTask = Callable[..., dict[str, Any]]


def test_request_documents_its_items_and_their_number() -> None:
    fields = GenerateRequest.model_json_schema()["properties"]
    assert (fields["stop"]["items"], fields["stop"]["maxItems"]) == ({"type": "string"}, MAX_STOPS)
    assert fields["prompt"]["anyOf"] == [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]


def test_the_example_is_a_valid_request() -> None:
    assert GenerateRequest(**EXAMPLE).model_dump(exclude_unset=True) == EXAMPLE


def test_completion_depends_only_on_prompt_and_seed(run_task: RunTask) -> None:
    batched = run_task("language-model", prompt=["the ", "rice and "], max_tokens=9, seed=5)
    again = run_task("language-model", prompt=["the ", "rice and "], max_tokens=9, seed=5)
    single = [
        run_task("language-model", prompt=p, max_tokens=9, seed=5)["completions"][0] for p in ("the ", "rice and ")
    ]
    assert batched == again
    assert batched["completions"] == single
    assert batched["seed"] == 5
    assert run_task("language-model", prompt="the ", max_tokens=9, seed=6)["completions"] != single[:1]


def test_default_seed_is_random_and_returned(run_task: RunTask) -> None:
    answer = run_task("language-model", prompt="the ", max_tokens=12)
    assert 0 <= answer["seed"] <= MAX_SEED
    assert run_task("language-model", prompt="the ", max_tokens=12, seed=answer["seed"]) == answer
    assert len({run_task("language-model", prompt="a", max_tokens=1)["seed"] for _ in range(5)}) == 5


def test_max_tokens_and_the_context_limit_a_completion(run_task: RunTask) -> None:
    [short] = run_task("language-model", prompt="the ", max_tokens=3, seed=1)["completions"]
    assert (short["tokens"], short["finish_reason"]) == (3, "length")
    assert len(short["text"]) == 3
    [default] = run_task("language-model", prompt="the ", seed=1)["completions"]
    assert default["tokens"] == 64
    long = "a" * (CONTEXT - 5)
    [full] = run_task("language-model", prompt=long, seed=1)["completions"]
    assert (full["tokens"], full["finish_reason"]) == (5, "length")


def test_stop_text_ends_the_completion_before_it(run_task: RunTask) -> None:
    [whole] = run_task("language-model", prompt="the ", seed=1)["completions"]
    stop = whole["text"][6:8]
    at = whole["text"].index(stop)
    [cut] = run_task("language-model", prompt="the ", seed=1, stop=["never", stop])["completions"]
    assert (cut["text"], cut["finish_reason"]) == (whole["text"][:at], "stop")


def test_an_end_of_the_model_ends_the_completion_before_it(
    models: dict[str, Model], runner: Runner, run_task: RunTask
) -> None:
    body = {"prompt": ["the ", "rice and "], "temperature": 0, "max_tokens": 12, "logprobs": True}
    whole = run_task("language-model", **body)["completions"]
    model = models["language-model"]
    tokenizer, head = model.tokenizer, model.manifest.head
    assert tokenizer is not None
    end_ids = tuple({tokenizer.token_to_id(one["logprobs"][3]["token"]) for one in whole})
    manifest = model.manifest.model_copy(update={"head": head.model_copy(update={"eos_ids": end_ids})})
    request = {"model": NAMES["language-model"], **body}
    answer = asyncio.run(answer_request(replace(model, manifest=manifest), runner, request))
    for cut, one in zip(answer["completions"], whole, strict=True):
        tokens = [entry["token"] for entry in one["logprobs"]]
        at = next(i for i, token in enumerate(tokens) if tokenizer.token_to_id(token) in end_ids)
        assert (cut["text"], cut["tokens"], cut["finish_reason"]) == ("".join(tokens[:at]), at, "stop")
        assert cut["logprobs"] == one["logprobs"][:at]


def test_temperature_zero_selects_the_most_probable_token(run_task: RunTask) -> None:
    greedy = [run_task("language-model", prompt="the ", temperature=0, seed=seed)["completions"] for seed in (1, 2)]
    assert greedy[0] == greedy[1]
    assert run_task("language-model", prompt="the ", top_k=1, seed=3)["completions"] == greedy[0]
    assert run_task("language-model", prompt="the ", top_p=1e-9, seed=3)["completions"] == greedy[0]


def test_logprobs_belong_to_the_tokens_of_the_text(run_task: RunTask) -> None:
    [without_logprobs] = run_task("language-model", prompt="the ", max_tokens=4, seed=1)["completions"]
    [with_logprobs] = run_task("language-model", prompt="the ", max_tokens=4, seed=1, logprobs=True)["completions"]
    assert "logprobs" not in without_logprobs
    assert "".join(entry["token"] for entry in with_logprobs["logprobs"]) == without_logprobs["text"]
    assert all(entry["logprob"] < 0 for entry in with_logprobs["logprobs"])


@pytest.mark.parametrize(
    ("body", "pointer", "detail"),
    [
        ({}, "/prompt", "expected a text or a list of texts, got null"),
        ({"prompt": 7}, "/prompt", "expected a text or a list of texts, got 7"),
        ({"prompt": ""}, "/prompt", "expected a non-empty text, got ''"),
        ({"prompt": []}, "/prompt", "expected 1 to 8 items, got an empty list"),
        ({"prompt": ["a", None]}, "/prompt/1", "expected a non-empty text, got null"),
        ({"prompt": "a" * CONTEXT}, "/prompt", f"expected at most {CONTEXT - 1} tokens, got {CONTEXT}"),
        (
            {"prompt": "aaaa", "max_tokens": CONTEXT - 3},
            "/max_tokens",
            f"expected 1 to {CONTEXT - 4} (the context of {CONTEXT} less a prompt of 4)",
        ),
        ({"prompt": "a", "max_tokens": 0}, "/max_tokens", "expected greater than or equal to 1, got 0"),
        ({"prompt": "a", "temperature": -1}, "/temperature", "greater than or equal to 0, got -1"),
        ({"prompt": "a", "temperature": "hot"}, "/temperature", "expected a valid number, got 'hot'"),
        ({"prompt": "a", "top_p": 0}, "/top_p", "expected greater than 0, got 0"),
        ({"prompt": "a", "top_p": 1.1}, "/top_p", "expected less than or equal to 1, got 1.1"),
        ({"prompt": "a", "top_k": -1}, "/top_k", "greater than or equal to 0, got -1"),
        ({"prompt": "a", "stop": ["a"] * 5}, "/stop", "expected at most 4 texts, got a list of 5"),
        ({"prompt": "a", "stop": [""]}, "/stop/0", "expected a text of 1 to 64 characters, got ''"),
        ({"prompt": "a", "stop": "."}, "/stop", "expected a valid list, got '.'"),
        ({"prompt": "a", "seed": -1}, "/seed", "greater than or equal to 0, got -1"),
        ({"prompt": "a", "seed": 2**53}, "/seed", "less than or equal to 9007199254740991"),
        ({"prompt": "a", "count": 1}, "/count", "not a field for tiny-letters, which takes `prompt`"),
        ({"prompt": "a", "truncation": 1}, "/truncation", "not a field for tiny-letters"),
        ({"prompt": "a", "seed_to": 1}, "/seed_to", "not a field for tiny-letters"),
    ],
)
def test_invalid_text_request_names_field_and_expectation(
    refusal: Callable[..., tuple[str, str]], body: dict[str, Any], pointer: str, detail: str
) -> None:
    got_pointer, got_detail = refusal("language-model", **body)
    assert got_pointer == pointer
    assert detail in got_detail


def test_logits_that_are_not_finite_name_their_prompt(tmp_path: Path, runner: Runner) -> None:
    model = read_model(write_poisoned_bundle(tmp_path, "language-model"))
    body = {"model": NAN_NAMES["language-model"], "max_tokens": 2, "seed": 3}
    for prompt, pointer in ((["the ", "z"], "/prompt/1"), ("z", "/prompt")):
        with pytest.raises(EkibenError, match="the model's output 'logits' is not finite") as caught:
            asyncio.run(answer_request(model, runner, {**body, "prompt": prompt}))
        assert (caught.value.slug, caught.value.faults[0].pointer) == ("not-finite", pointer)


def test_a_token_without_finite_logits_ends_a_generation_in_an_error(tmp_path: Path, runner: Runner) -> None:
    """Sampling the poisonous letter itself makes the logits of the next step NaN."""
    model = read_model(write_poisoned_bundle(tmp_path, "language-model"))
    body = {"model": NAN_NAMES["language-model"], "prompt": "the ", "max_tokens": 150, "temperature": 10.0}
    with pytest.raises(EkibenError, match="the model's output 'logits' is not finite") as caught:
        asyncio.run(answer_request(model, runner, {**body, "seed": 1}))
    assert caught.value.slug == "not-finite"
