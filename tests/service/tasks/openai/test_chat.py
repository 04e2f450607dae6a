"""POST /v1/chat/completions: messages become a prompt, and the text becomes the message of the assistant."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from service.engine.runner import Runner
from service.engine.sessions.model import Model
from service.errors import EkibenError
from service.tasks.openai.chat import ChatRequest, read_chat, read_messages
from service.tasks.openai.fields import parse_fields
from tests.service.bundles import CONTEXT
from tests.service.chat_bundle import NAME
from tests.service.tasks.openai.conftest import CallRoute

USER = {"role": "user", "content": "b"}


def test_the_message_continues_the_rendered_prompt(call: CallRoute) -> None:
    answer = call(messages=[{"role": "system", "content": "é"}, USER], max_tokens=3, logprobs=True, top_logprobs=1)
    [choice] = answer["choices"]
    assert answer["object"] == "chat.completion"
    assert choice["message"] == {"role": "assistant", "content": "b ", "refusal": None}
    assert answer["usage"]["prompt_tokens"] == 2 + 1 + 1 + 1 + 1, "the bytes of é and b, two ends, and the a behind"
    entry = choice["logprobs"]["content"][2]
    assert (entry["token"], entry["bytes"]) == ("bytes:\\xc3", [0xC3])
    assert entry["top_logprobs"] == [{key: entry[key] for key in ("token", "logprob", "bytes")}]


def test_the_first_chunk_has_the_role(call: CallRoute) -> None:
    first, *others = call(messages=[USER], max_tokens=3, stream=True)
    assert first["object"] == "chat.completion.chunk"
    assert first["choices"][0]["delta"]["role"] == "assistant"
    assert all("role" not in chunk["choices"][0]["delta"] for chunk in others)


def test_the_answer_may_fill_the_context(call: CallRoute) -> None:
    answer = call(messages=[USER])
    assert answer["usage"]["total_tokens"] == CONTEXT
    assert answer["choices"][0]["finish_reason"] == "length"


def test_contents_may_be_parts_of_text(call: CallRoute) -> None:
    parts = [{"type": "text", "text": text} for text in ("b", "é")]
    assert read_messages([{"role": "user", "content": parts, "name": None}]) == [{"role": "user", "content": "bé"}]


@pytest.mark.parametrize(
    ("body", "pointer", "detail"),
    [
        ({"messages": []}, "/messages", "expected at least one message"),
        ({"messages": ["a"]}, "/messages/0", 'an object with a "role"'),
        ({"messages": [{"role": "user"}]}, "/messages/0/content", "expected a text or a list of text parts, got null"),
        ({"messages": [{**USER, "tool_calls": []}]}, "/messages/0/tool_calls", "is not supported"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "/messages/0/content/0",
            'expected a part {"type": "text"',
        ),
        ({"messages": [{"role": "tool", "content": "b"}]}, "/messages", "refuses them: no tools"),
        ({"messages": [{"role": "user", "content": "a" * CONTEXT}]}, "/messages", f"at most {CONTEXT - 1} tokens"),
        ({"messages": [USER], "max_completion_tokens": CONTEXT}, "/max_completion_tokens", "less a prompt of 3"),
        ({"messages": [USER], "max_tokens": 0}, "/max_tokens", "greater than or equal to 1"),
        ({"messages": [USER], "top_logprobs": 1}, "/top_logprobs", "expected only with `logprobs`"),
        ({"messages": [USER], "n": 9}, "/n", "at most 8 completions in all"),
        ({"messages": [USER], "echo": True}, "/echo", "unknown field"),
    ],
    ids=str,
)
def test_invalid_requests_name_field_and_expectation(
    body: dict[str, Any], pointer: str, detail: str, refusal: Callable[..., tuple[str, str]]
) -> None:
    got_pointer, got_detail = refusal(**body)
    assert got_pointer == pointer
    assert detail in got_detail


def test_a_model_without_a_template_answers_no_chats(chat_model: Model, runner: Runner) -> None:
    head = chat_model.manifest.head.model_copy(update={"chat_template": None})
    model = replace(chat_model, manifest=chat_model.manifest.model_copy(update={"head": head}))
    fields = parse_fields(ChatRequest, {"model": NAME, "messages": [USER]})
    with pytest.raises(EkibenError, match="tiny-chat has no chat template") as caught:
        asyncio.run(read_chat(model, runner, fields, 1, runner.new_context()))
    assert caught.value.slug == "wrong-task"
