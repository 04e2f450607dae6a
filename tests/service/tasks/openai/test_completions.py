"""POST /v1/completions: prompts of all kinds, log probabilities, and the edges of every field."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.service.bundles import CONTEXT
from tests.service.chat_bundle import CYCLE, TOKENS, VOCABULARY
from tests.service.tasks.openai.conftest import CallRoute

IDS = [0, 1, 2]


@pytest.mark.parametrize("prompt", ["ab ", ["ab "], IDS, [IDS]], ids=str)
def test_a_prompt_is_a_text_or_token_ids(prompt: Any, call: CallRoute) -> None:
    [choice] = call(prompt=prompt, max_tokens=9, echo=True)["choices"]
    assert choice["text"] == "ab é€😀"


def test_texts_and_token_ids_may_be_mixed(call: CallRoute) -> None:
    assert [choice["text"] for choice in call(prompt=["a", IDS], max_tokens=1)["choices"]] == ["b", ""]


def test_log_probabilities_belong_to_the_tokens(call: CallRoute) -> None:
    [choice] = call(prompt="ab", max_tokens=3, echo=True, logprobs=2)["choices"]
    logprobs = choice["logprobs"]
    assert logprobs["tokens"] == ["a", "b", " ", "bytes:\\xc3", "bytes:\\xa9"]
    assert logprobs["token_logprobs"][0] is None
    assert logprobs["top_logprobs"][0] is None
    assert all(-0.2 < value < 0 for value in logprobs["token_logprobs"][1:])
    assert logprobs["text_offset"][:3] == [0, 1, 2]
    for token, value, top in zip(logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True):
        if top is not None:
            assert len(top) == 2
            assert top[token] == value == max(top.values())


def test_a_token_that_is_not_among_the_most_probable_is_beside_them(call: CallRoute) -> None:
    [choice] = call(prompt="a", max_tokens=1, logprobs=1, logit_bias={"5": 100})["choices"]
    [top], [value] = choice["logprobs"]["top_logprobs"], choice["logprobs"]["token_logprobs"]
    assert set(top) == {"b", choice["logprobs"]["tokens"][0]}
    assert value < -2, "the probability of the model, without the bias"


def test_zero_log_probabilities_are_those_of_the_tokens_alone(call: CallRoute) -> None:
    [choice] = call(prompt="a", max_tokens=2, logprobs=0)["choices"]
    assert [set(top) for top in choice["logprobs"]["top_logprobs"]] == [{"b"}, {" "}]


def test_no_new_tokens_are_a_length_of_zero(call: CallRoute) -> None:
    answer = call(prompt="ab", max_tokens=0, echo=True, logprobs=0)
    [choice] = answer["choices"]
    assert (choice["text"], choice["finish_reason"], len(choice["logprobs"]["tokens"])) == ("ab", "length", 2)
    assert answer["usage"]["completion_tokens"] == 0
    assert call(prompt="ab", max_tokens=0)["choices"][0]["text"] == ""


def test_the_context_ends_a_completion(call: CallRoute) -> None:
    prompt = (TOKENS * 20)[: CONTEXT - 9].decode(errors="ignore")
    size = len(prompt.encode())
    [choice] = call(prompt=prompt, max_tokens=CONTEXT - size)["choices"]
    assert choice["finish_reason"] == "length"


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0},
        {"temperature": 1e-300},
        {"temperature": 1.0, "top_k": 1},
        {"temperature": 1.0, "top_p": 1e-9},
        {"temperature": 0, "seed": 2**63 - 1},
        {"temperature": 0, "seed": -(2**63)},
        {"temperature": 0, "logit_bias": {"3": 0}},
    ],
    ids=str,
)
def test_these_select_the_most_probable_token(fields: dict[str, Any], call: CallRoute) -> None:
    assert call(prompt="a", max_tokens=13, **fields)["choices"][0]["text"] == CYCLE[1:] + "a"


def test_a_bias_of_100_selects_and_one_of_minus_100_excludes(call: CallRoute) -> None:
    assert call(prompt="a", max_tokens=3, logit_bias={"2": 100})["choices"][0]["text"] == "   "
    text = call(prompt="a", max_tokens=9, temperature=2, logit_bias={"1": -100, "2": -100})["choices"][0]["text"]
    assert not set("b ") & set(text)


@pytest.mark.parametrize(
    ("stop", "text"), [("b", ""), ("é", "b "), ("ab", "b é€😀."), ([".", "€"], "b é"), (["never", "x"], "b é€😀.ab é")]
)
def test_a_stop_ends_the_text_before_it(stop: Any, text: str, call: CallRoute) -> None:
    [choice] = call(prompt="a", max_tokens=17, stop=stop)["choices"]
    assert (choice["text"], choice["finish_reason"]) == (text, "length" if "never" in stop else "stop")


@pytest.mark.parametrize(
    ("body", "pointer", "detail"),
    [
        ({}, "/prompt", "expected a text, a list of texts, token ids or lists of those, got null"),
        ({"prompt": ""}, "/prompt", "expected a non-empty text, got ''"),
        ({"prompt": []}, "/prompt", "expected 1 to 8 items, got an empty list"),
        ({"prompt": ["a", ""]}, "/prompt/1", "expected a non-empty text, got ''"),
        ({"prompt": [[]]}, "/prompt/0", "at least 1, got 0"),
        ({"prompt": [0, VOCABULARY]}, "/prompt/1", f"expected a token id of 0 to {VOCABULARY - 1}, got {VOCABULARY}"),
        ({"prompt": [0, True]}, "/prompt/1", "expected a token id"),
        ({"prompt": [-1]}, "/prompt/0", "expected a token id"),
        ({"prompt": [0] * CONTEXT}, "/prompt", f"expected at most {CONTEXT - 1} tokens"),
        ({"prompt": "a" * CONTEXT}, "/prompt", f"expected at most {CONTEXT - 1} tokens, got {CONTEXT}"),
        ({"prompt": "a", "max_tokens": CONTEXT}, "/max_tokens", f"expected 0 to {CONTEXT - 1} (the context of"),
        ({"prompt": "a", "max_tokens": -1}, "/max_tokens", "greater than or equal to 0"),
        ({"prompt": "a", "best_of": 1, "n": 2}, "/best_of", "expected at least n, 2, got 1"),
        ({"prompt": "a", "best_of": 2, "stream": True}, "/best_of", "cannot be streamed"),
        ({"prompt": "a", "best_of": 9}, "/best_of", "at most 8 completions in all"),
        ({"prompt": "a", "logprobs": 6}, "/logprobs", "less than or equal to 5"),
        ({"prompt": "a", "logprobs": True}, "/logprobs", "expected a valid integer"),
        ({"prompt": "a", "logit_bias": {"x": 1}}, "/logit_bias/x", "expected a token id"),
        ({"prompt": "a", "logit_bias": {str(VOCABULARY): 1}}, f"/logit_bias/{VOCABULARY}", "expected a token id"),
        ({"prompt": "a", "logit_bias": {"1": 101}}, "/logit_bias/1", "expected -100 to 100, got 101"),
    ],
    ids=str,
)
def test_invalid_requests_name_field_and_expectation(
    body: dict[str, Any], pointer: str, detail: str, refusal: Callable[..., tuple[str, str]]
) -> None:
    got_pointer, got_detail = refusal(**body)
    assert got_pointer == pointer
    assert detail in got_detail
