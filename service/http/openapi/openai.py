"""The routes of OpenAI's API.

Invariant: the schema of a request has the fields that the service takes, those that change nothing too.
"""

from collections.abc import Mapping

from service.http.openapi.operation import Operation
from service.http.openapi.schemas import NUMBER, TEXT, WHOLE, Schema, array, model_schema, nullable, record
from service.http.wire.event_stream import EVENT_STREAM
from service.http.wire.messages import JSON
from service.tasks.openai.chat import ChatRequest
from service.tasks.openai.completions import CompletionRequest
from service.tasks.openai.fields import NEUTRAL, UNUSED, OpenAIFields

TAG = "OpenAI"
FINISH_REASON: Schema = {"enum": ["stop", "length"]}
MODEL = record({"id": TEXT, "object": {"const": "model"}, "created": WHOLE, "owned_by": TEXT})
COUNT: Schema = {**WHOLE, "minimum": 0}
USAGE = record({"prompt_tokens": COUNT, "completion_tokens": COUNT, "total_tokens": COUNT})
COMPLETION_LOGPROBS = record(
    {
        "tokens": array(TEXT),
        "token_logprobs": array(nullable(NUMBER)),
        "top_logprobs": array({"type": ["object", "null"], "additionalProperties": NUMBER}),
        "text_offset": array(WHOLE),
    }
)
TOKEN = {"token": TEXT, "logprob": nullable(NUMBER), "bytes": array(WHOLE)}
CHAT_LOGPROBS = record(
    {
        "content": array(record({**TOKEN, "top_logprobs": array(record(TOKEN))})),
        "refusal": {"type": "null"},
    }
)
MESSAGE = record({"role": {"const": "assistant"}, "content": TEXT, "refusal": {"type": "null"}})

DELTA = record({"content": TEXT}, {"role": {"const": "assistant"}})


def _request(fields: type[OpenAIFields]) -> Schema:
    schema = model_schema(fields)
    schema["properties"] = {
        **{name: {} for name in sorted(UNUSED)},
        **{name: {"enum": [*values, None]} for name, values in NEUTRAL.items()},
        **{
            name: nullable(_with_neutral(name, field))
            for name, field in schema["properties"].items()
            if name not in schema["required"]
        },
        **{name: schema["properties"][name] for name in schema["required"]},
    }
    return schema


def _with_neutral(name: str, field: Schema) -> Schema:
    """The schema of a field that other servers have, too, whose values that ask for nothing it takes."""
    return {"anyOf": [field, {"enum": list(NEUTRAL[name])}]} if name in NEUTRAL else field


def _chunk(kind: str, content: dict[str, Schema], logprobs: Schema) -> Schema:
    """Return the schema of a part of an answer; the last one may hold no choices but the usage."""
    choice = record(
        {"index": WHOLE, **content, "logprobs": nullable(logprobs), "finish_reason": nullable(FINISH_REASON)}
    )
    head = {"id": TEXT, "object": {"const": kind}, "created": WHOLE, "model": TEXT, "system_fingerprint": TEXT}
    return record({**head, "choices": array(choice)}, {"usage": nullable(USAGE)})


def _answer(kind: str, content: dict[str, Schema], logprobs: Schema) -> Schema:
    choice = record(
        {"index": WHOLE, **content, "logprobs": nullable(logprobs), "finish_reason": FINISH_REASON},
    )
    return record(
        {
            "id": TEXT,
            "object": {"const": kind},
            "created": WHOLE,
            "model": TEXT,
            "system_fingerprint": {**TEXT, "description": "the version of the model that answered"},
            "choices": array(choice),
            "usage": USAGE,
        }
    )


OPERATIONS: Mapping[str, Operation] = {
    "/v1/completions": Operation(
        tag=TAG,
        summary="Continue prompts, as OpenAI's API does.",
        request={JSON: _request(CompletionRequest)},
        answer={JSON: _answer("text_completion", {"text": TEXT}, COMPLETION_LOGPROBS), EVENT_STREAM: None},
        meaning="The completions, or with `stream` chunks of them (CompletionChunk): the last event is [DONE], or an "
        "error object.",
        events={"CompletionChunk": _chunk("text_completion", {"text": TEXT}, COMPLETION_LOGPROBS)},
        errors=("wrong-task",),
    ),
    "/v1/chat/completions": Operation(
        tag=TAG,
        summary="Answer a conversation, as OpenAI's API does; for models that have a chat template.",
        request={JSON: _request(ChatRequest)},
        answer={JSON: _answer("chat.completion", {"message": MESSAGE}, CHAT_LOGPROBS), EVENT_STREAM: None},
        meaning="The messages, or with `stream` chunks of them (ChatChunk): the last event is [DONE], or an error "
        "object.",
        events={"ChatChunk": _chunk("chat.completion.chunk", {"delta": DELTA}, CHAT_LOGPROBS)},
        errors=("wrong-task",),
    ),
    "/v1/models": Operation(
        tag=TAG,
        summary="List the language models that are READY.",
        answer={JSON: record({"object": {"const": "list"}, "data": array(MODEL)})},
    ),
    "/v1/models/{model}": Operation(
        tag=TAG,
        summary="Describe a language model that is READY.",
        answer={JSON: MODEL},
        errors=("unknown-model", "wrong-task", "not-ready"),
    ),
}
