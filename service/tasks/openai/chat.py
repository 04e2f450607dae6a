"""POST /v1/chat/completions: answers a conversation in the format of the model's chat template, like OpenAI's API."""

from collections.abc import Sequence
from typing import Any

from pydantic import ConfigDict, Field
from tokenizers import Tokenizer

from service.contract.heads import ChatTemplate, LanguageModelHead
from service.engine.context import RequestContext
from service.engine.generation.events import GenerationParams
from service.engine.generation.sampler import TokenLogprob
from service.engine.runner import Runner
from service.engine.sessions.model import Model
from service.errors import EkibenError, Fault
from service.manifest import Manifest
from service.tasks.body import JsonObject
from service.tasks.faults import fault, type_fault
from service.tasks.generation.fields import check_max_tokens, read_sampling
from service.tasks.generation.text import TextRequest, stop_ids, tokenize_prompts
from service.tasks.generation.token_text import token_text
from service.tasks.openai.answer import OpenAIRequest, Part
from service.tasks.openai.chat_template import render_chat
from service.tasks.openai.fields import OpenAIFields, engine_stops

EXAMPLE: JsonObject = {"model": "a-chat-model", "messages": [{"role": "user", "content": "Hello"}], "seed": 1}
MESSAGE_FIELDS = frozenset({"role", "content", "name", "refusal"})


class ChatRequest(OpenAIFields):
    """A conversation for one language model that has a chat template."""

    messages: list[Any] = Field(
        description='the conversation: objects with "role" and "content", a text or a list of text parts',
        json_schema_extra={"items": {"type": "object"}},
    )
    max_tokens: int | None = Field(default=None, ge=1, description="as max_completion_tokens")
    max_completion_tokens: int | None = Field(
        default=None, ge=1, description="maximum number of new tokens; by default up to the end of the context"
    )
    logprobs: bool = Field(default=False, description="return the log probability of each token")
    top_logprobs: int | None = Field(
        default=None, ge=0, le=20, description="with logprobs: those of that many most probable tokens"
    )

    model_config = ConfigDict(json_schema_extra={"example": EXAMPLE})


async def read_chat(
    model: Model, runner: Runner, fields: ChatRequest, seed: int, context: RequestContext
) -> OpenAIRequest:
    """Return the request for the engine. Raises EkibenError."""
    manifest, tokenizer = model.manifest, model.tokenizer
    assert tokenizer is not None, "every text model has a tokenizer"
    template, messages = _chat_template(manifest), read_messages(fields.messages)
    if fields.top_logprobs is not None and not fields.logprobs:
        raise fault("/top_logprobs", "expected only with `logprobs`")
    if fields.n > manifest.limits.max_items:
        raise type_fault("/n", f"at most {manifest.limits.max_items} completions in all", fields.n)
    prompt = await runner.call_host(render_chat, template, messages, context=context)
    # The template writes the special tokens itself.
    rows = await tokenize_prompts({"/messages": prompt}, model, runner, context, add_special_tokens=False)
    params = GenerationParams(
        max_tokens=_max_tokens(fields, len(rows[0]), manifest),
        sampling=read_sampling(fields, seed, manifest),
        stops=engine_stops(fields),
        stop_ids=stop_ids(model),
        num_logprobs=(fields.top_logprobs or 0) if fields.logprobs else None,
    )
    return OpenAIRequest(
        text=TextRequest(model=model, prompts=rows, pointers=["/messages"], params=params, num_choices=fields.n),
        writer=ChatWriter(tokenizer, with_logprobs=fields.logprobs),
        num_returned=fields.n,
        include_usage=fields.include_usage,
    )


def read_messages(messages: Sequence[Any]) -> list[JsonObject]:
    """Return the messages with their contents as texts. Raises EkibenError."""
    if not messages:
        raise fault("/messages", "expected at least one message, got none")
    read = []
    for i, message in enumerate(messages):
        pointer = f"/messages/{i}"
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise type_fault(pointer, 'an object with a "role" and a "content"', message)
        given = {key: value for key, value in message.items() if value is not None}
        if unknown := sorted(given.keys() - MESSAGE_FIELDS):
            raise fault(f"{pointer}/{unknown[0]}", f"is not supported; the fields are {', '.join(MESSAGE_FIELDS)}")
        given["content"] = _read_content(message.get("content"), f"{pointer}/content")
        read.append(given)
    return read


def _read_content(content: Any, pointer: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise type_fault(pointer, "a text or a list of text parts", content)
    for i, part in enumerate(content):
        if not (isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)):
            raise type_fault(f"{pointer}/{i}", 'a part {"type": "text", "text": …}', part)
    return "".join(part["text"] for part in content)


def _chat_template(manifest: Manifest) -> ChatTemplate:
    head = manifest.head
    assert isinstance(head, LanguageModelHead), "the head of text models that generate"
    if head.chat_template is None:
        detail = f"{manifest.name} has no chat template, so it answers no chats: send prompts to /v1/completions"
        raise EkibenError("wrong-task", detail, (Fault(pointer="/model", detail=detail),))
    return head.chat_template


def _max_tokens(fields: ChatRequest, prompt_size: int, manifest: Manifest) -> int:
    name = "max_completion_tokens" if fields.max_completion_tokens is not None else "max_tokens"
    max_tokens: int | None = getattr(fields, name)
    if max_tokens is None:
        assert manifest.limits.max_steps is not None, "every text model has max_steps"
        return manifest.limits.max_steps - prompt_size
    check_max_tokens(max_tokens, prompt_size, manifest, pointer=f"/{name}", minimum=1)
    return max_tokens


class ChatWriter:
    """Writes choices with a `message`, or what is added to it as `delta`."""

    kind, chunk_kind = "chat.completion", "chat.completion.chunk"
    id_prefix = "chatcmpl"

    def __init__(self, tokenizer: Tokenizer, *, with_logprobs: bool) -> None:
        self._tokenizer = tokenizer
        self._with_logprobs = with_logprobs

    def choice(self, part: Part) -> JsonObject:
        return self._choice(part, message={"role": "assistant", "content": part.text, "refusal": None})

    def chunk_choice(self, part: Part) -> JsonObject:
        role = {"role": "assistant"} if part.is_first else {}
        return self._choice(part, delta={**role, "content": part.text})

    def _choice(self, part: Part, **content: JsonObject) -> JsonObject:
        logprobs = {"content": [self._logprob(token) for token in part.tokens], "refusal": None}
        return {
            "index": part.index,
            **content,
            "logprobs": logprobs if self._with_logprobs else None,
            "finish_reason": part.finish_reason,
        }

    def _logprob(self, token: TokenLogprob) -> JsonObject:
        tops = [self._entry(other, logprob) for other, logprob in token.top]
        return {**self._entry(token.id, token.logprob), "top_logprobs": tops}

    def _entry(self, token: int, logprob: float | None) -> JsonObject:
        text, content = token_text(self._tokenizer, token)
        return {"token": text, "logprob": logprob, "bytes": list(content)}
