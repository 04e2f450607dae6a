"""The routes of generation in the OpenAPI document, beside the endpoints that the framework describes.

Invariant: the schema of a request is that of the model that validates it.
"""

from typing import Any

from service.http.routes.oip_generate import REQUEST_SCHEMA
from service.http.wire.event_stream import EVENT_STREAM
from service.http.wire.messages import JSON
from service.tasks.body import RequestBody
from service.tasks.generate import GenerateRequest
from service.tasks.openai.chat import ChatRequest
from service.tasks.openai.completions import CompletionRequest
from service.tasks.openai.fields import StreamOptions

Schema = dict[str, Any]
REFERENCE = "#/components/schemas/{model}"
TAG = "Generation"
TEXT: Schema = {"type": "string"}
OPENAI_ERROR: Schema = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {name: {"type": "string"} for name in ("message", "type", "param", "code")},
            "required": ["message", "type"],
        }
    },
    "required": ["error"],
}
OPENAI_MODEL: Schema = {
    "type": "object",
    "properties": {"id": TEXT, "object": {"enum": ["model"]}, "created": {"type": "integer"}, "owned_by": TEXT},
    "required": ["id", "object", "created", "owned_by"],
}


def describe_paths() -> dict[str, Schema]:
    """Return the path items of the routes."""
    return {
        "/generate/stream": _post(
            "Continue prompts, and send the text as it is generated.",
            _schema(GenerateRequest),
            {EVENT_STREAM: TEXT},
            'Events {"index", "text"}, the last of each prompt with "finish_reason" and "tokens"; then one event `end` '
            'with "model", "version" and "seed", or one event `error` with a problem document.',
        ),
        "/v1/completions": _post(
            "Continue prompts, as OpenAI's API does.",
            _schema(CompletionRequest),
            {JSON: _answer("text_completion"), EVENT_STREAM: TEXT},
            "The completions, or chunks of them with `stream`: the last event is [DONE], or an error object.",
            error=OPENAI_ERROR,
        ),
        "/v1/chat/completions": _post(
            "Answer a conversation, as OpenAI's API does; for models that have a chat template.",
            _schema(ChatRequest),
            {JSON: _answer("chat.completion"), EVENT_STREAM: TEXT},
            "The messages, or chunks of them with `stream`: the last event is [DONE], or an error object.",
            error=OPENAI_ERROR,
        ),
        "/v1/models": _get(
            "List the language models that are READY.",
            {
                "type": "object",
                "properties": {"object": {"enum": ["list"]}, "data": {"type": "array", "items": OPENAI_MODEL}},
            },
        ),
        "/v1/models/{model}": _get("Describe a language model that is READY.", OPENAI_MODEL, "model"),
        "/v2/models/{model}/generate": _post(
            "Continue one prompt, as Triton's generate extension does.",
            REQUEST_SCHEMA,
            {JSON: _generated()},
            "The text.",
            "model",
        ),
        "/v2/models/{model}/generate_stream": _post(
            "Continue one prompt, and send the text as it is generated.",
            REQUEST_SCHEMA,
            {EVENT_STREAM: TEXT},
            'Events of POST /v2/models/{model}/generate with parts of the text; the last has "details" with a '
            '"finish_reason", or is an error object.',
            "model",
        ),
    }


def describe_components() -> dict[str, Schema]:
    """Return the schemas to which those of the routes refer."""
    return {"StreamOptions": StreamOptions.model_json_schema(ref_template=REFERENCE)}


def _schema(request: type[RequestBody]) -> Schema:
    schema = request.model_json_schema(ref_template=REFERENCE)
    schema.pop("$defs", None)
    return schema


def _answer(kind: str) -> Schema:
    return {
        "type": "object",
        "properties": {
            "id": TEXT,
            "object": {"enum": [kind]},
            "created": {"type": "integer"},
            "model": TEXT,
            "system_fingerprint": {"type": "string", "description": "the version of the model that answered"},
            "choices": {"type": "array", "items": {"type": "object"}},
            "usage": {"type": "object"},
        },
    }


def _generated() -> Schema:
    names = ("model_name", "model_version", "text_output", "id")
    return {"type": "object", "properties": {**dict.fromkeys(names, TEXT), "details": {"type": "object"}}}


def _post(
    description: str,
    schema: Schema,
    answers: dict[str, Schema],
    meaning: str,
    *parameters: str,
    error: Schema | None = None,
) -> Schema:
    return {
        "post": {
            "tags": [TAG],
            "description": description,
            "parameters": [_parameter(name) for name in parameters],
            "requestBody": {"required": True, "content": {JSON: {"schema": schema}}},
            "responses": {
                "200": {"description": meaning, "content": {kind: {"schema": answers[kind]} for kind in answers}},
                "default": _error(error),
            },
        }
    }


def _get(description: str, schema: Schema, *parameters: str) -> Schema:
    return {
        "get": {
            "tags": [TAG],
            "description": description,
            "parameters": [_parameter(name) for name in parameters],
            "responses": {
                "200": {"description": description, "content": {JSON: {"schema": schema}}},
                "default": _error(OPENAI_ERROR),
            },
        }
    }


def _parameter(name: str) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": TEXT}


def _error(schema: Schema | None) -> Schema:
    """An error of OpenAI's, or a problem document."""
    if schema is not None:
        return {"description": "An error object.", "content": {JSON: {"schema": schema}}}
    return {
        "description": "A problem document.",
        "content": {"application/problem+json": {"schema": {"type": "object"}}},
    }
