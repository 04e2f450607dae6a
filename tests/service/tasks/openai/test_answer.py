"""The chunks of a stream add up to the whole answer."""

from typing import Any

import pytest

from service.errors import EkibenError
from tests.service.chat_bundle import CYCLE, END_ID, NAME
from tests.service.tasks.openai.conftest import CallRoute

CHAT = [{"role": "user", "content": "b"}]


def joined(chunks: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """The choices that the chunks add up to."""
    choices: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for part in chunk["choices"]:
            assert choices.get(part["index"], {}).get("finish_reason") is None, "chunks after the last of a choice"
            choice = choices.setdefault(part["index"], {"text": "", "logprobs": None})
            choice["text"] += part["delta"]["content"] if "delta" in part else part["text"]
            choice["finish_reason"] = part["finish_reason"]
            for name, values in (part["logprobs"] or {}).items():
                choice["logprobs"] = choice["logprobs"] or {}
                choice["logprobs"][name] = values and [*choice["logprobs"].get(name, []), *values]
    return choices


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "a", "max_tokens": 14},
        {"prompt": ["a", "é", "a"], "max_tokens": 6, "n": 2, "temperature": 1.0, "seed": 5},
        {"prompt": "ab é", "echo": True, "logprobs": 2, "max_tokens": 13},
        {"prompt": "ab", "echo": True, "logprobs": 0, "max_tokens": 0},
        {"prompt": "a", "stop": "€", "logprobs": 1},
        {"messages": CHAT, "max_tokens": 9, "logprobs": True, "top_logprobs": 2, "n": 2},
        {"messages": CHAT, "max_completion_tokens": 5},
    ],
    ids=str,
)
def test_chunks_add_up_to_the_answer(body: dict[str, Any], call: CallRoute) -> None:
    whole = call(**body)
    chunks = call(**body, stream=True, stream_options={"include_usage": True})
    choices = joined(chunks)
    assert len(choices) == len(whole["choices"]) == len(chunks[-2]["choices"]) * len(choices)
    for choice in whole["choices"]:
        got = choices[choice["index"]]
        assert got["text"] == (choice["message"]["content"] if "message" in choice else choice["text"])
        assert (got["finish_reason"], got["logprobs"]) == (choice["finish_reason"], choice["logprobs"])
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == whole["usage"]
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert {chunk["id"] for chunk in chunks} == {chunks[0]["id"]} != {whole["id"]}


def test_usage_is_left_out_unless_asked_for(call: CallRoute) -> None:
    chunks = call(prompt="a", max_tokens=2, stream=True)
    assert all("usage" not in chunk and chunk["choices"] for chunk in chunks)


def test_an_answer_names_its_model_and_version(call: CallRoute) -> None:
    answer = call(prompt="a", max_tokens=2)
    assert answer["object"] == "text_completion"
    assert (answer["model"], len(answer["system_fingerprint"])) == (NAME, 12)
    assert answer["usage"] == {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


def test_choices_are_numbered_prompt_by_prompt(call: CallRoute) -> None:
    both = [choice["text"] for choice in call(prompt=["a", "é"], n=2, temperature=1.5, max_tokens=9)["choices"]]
    single = [
        choice["text"]
        for prompt in ("a", "é")
        for choice in call(prompt=prompt, n=2, temperature=1.5, max_tokens=9)["choices"]
    ]
    assert both == single
    assert len(set(both)) == 4
    assert call(prompt="a", temperature=1.5, max_tokens=9)["choices"][0]["text"] == both[0]


def test_equal_prompts_of_a_list_have_equal_answers(call: CallRoute) -> None:
    first, second = call(prompt=["a", "a"], temperature=1.5, max_tokens=9)["choices"]
    assert first["text"] == second["text"]


def test_best_of_returns_the_most_probable(call: CallRoute) -> None:
    candidates = call(prompt="a", n=4, logprobs=0, temperature=2, max_tokens=5)["choices"]
    means = [sum(choice["logprobs"]["token_logprobs"]) / 5 for choice in candidates]
    best = call(prompt="a", n=2, best_of=4, temperature=2, max_tokens=5)
    ranked = sorted(range(4), key=lambda i: -means[i])
    assert [choice["text"] for choice in best["choices"]] == [candidates[i]["text"] for i in ranked[:2]]
    assert [choice["index"] for choice in best["choices"]] == [0, 1]
    assert all(choice["logprobs"] is None for choice in best["choices"])
    assert best["usage"]["completion_tokens"] == 20


def test_an_end_at_once_is_an_empty_text(call: CallRoute) -> None:
    body = {"prompt": "a", "logit_bias": {str(END_ID): 100}, "logprobs": 1}
    [choice] = call(**body)["choices"]
    assert (choice["text"], choice["finish_reason"], choice["logprobs"]["tokens"]) == ("", "stop", [])
    [chunk] = call(**body, stream=True)
    assert (chunk["choices"][0]["text"], chunk["choices"][0]["finish_reason"]) == ("", "stop")


def test_no_chunk_holds_a_part_of_a_character_or_of_a_stop(call: CallRoute) -> None:
    chunks = call(prompt="a", max_tokens=40, stop=["😀.ab é€x"], stream=True)
    texts = [choice["text"] for chunk in chunks for choice in chunk["choices"]]
    assert "".join(texts) == (CYCLE * 4)[1 : len("".join(texts)) + 1]
    assert not any("\N{REPLACEMENT CHARACTER}" in text for text in texts)
    cut = call(prompt="a", max_tokens=40, stop=["😀.ab"], stream=True)
    assert "".join(choice["text"] for chunk in cut for choice in chunk["choices"]) == "b é€"


def test_too_many_choices_are_refused(call: CallRoute) -> None:
    with pytest.raises(EkibenError, match="at most 8 completions in all"):
        call(prompt=["a", "b", "é"], n=3)
