"""OpenAI's API: completions, chats and models. Errors are OpenAI's error objects.

Invariant: a stream ends with exactly one terminal event: `[DONE]` after all chunks, or an error.
"""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import orjson

from service.engine.context import RequestContext
from service.errors import EkibenError
from service.http.route import InferenceRoute, ReadRoute, Route, ServiceState
from service.http.wire.errors import openai_error_response
from service.http.wire.event_stream import event_stream, write_event
from service.http.wire.json_body import parse_json
from service.http.wire.messages import JSON, HttpRequest, Response, StreamedResponse, check_json_type
from service.tasks.body import JsonObject
from service.tasks.model_lookup import resolve_language_model
from service.tasks.openai.answer import OpenAIRequest
from service.tasks.openai.chat import ChatRequest, read_chat
from service.tasks.openai.completions import CompletionRequest, read_completion
from service.tasks.openai.fields import OpenAIFields, engine_seed, parse_fields
from service.tasks.openai.routes import CHAT_ROUTE, COMPLETION_ROUTE

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
DONE = b"data: [DONE]\n\n"
STARTED_AT = int(time.time())
MODELS = "/v1/models"


def _inference_route(
    name: str, fields_type: type[OpenAIFields], read: Callable[..., Awaitable[OpenAIRequest]]
) -> InferenceRoute:
    async def handle(
        state: ServiceState, request: HttpRequest, body: bytes, context: RequestContext
    ) -> Response | StreamedResponse:
        check_json_type(request)
        fields = parse_fields(fields_type, parse_json(body))
        model = resolve_language_model(state.repository, fields.model)
        context.model, context.version = model.manifest.name, model.manifest.version
        seed = engine_seed(fields)
        parsed = await read(model, state.runner, fields, seed, context)
        if fields.stream:
            return event_stream(_write_chunks(parsed.chunks(state.runner, context)), _error_event)
        return Response(JSON, orjson.dumps(await parsed.answer(state.runner, context)))

    return InferenceRoute(name=name, handle=handle, error_format=openai_error_response)


async def _write_chunks(chunks: AsyncGenerator[JsonObject, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(chunks):
        async for chunk in chunks:
            yield write_event(chunk)
    yield DONE


def _error_event(error: EkibenError) -> bytes:
    return b"data: %s\n\n" % openai_error_response(error).body


async def _list_models(state: ServiceState, _: HttpRequest) -> Response:
    rows = state.repository.list_models()
    models = [_describe(row["name"]) for row in rows if row["state"] == "READY" and _is_language_model(row)]
    return Response(JSON, orjson.dumps({"object": "list", "data": models}))


async def _show_model(state: ServiceState, request: HttpRequest) -> Response:
    name = request.path.removeprefix(f"{MODELS}/")
    resolve_language_model(state.repository, name)
    return Response(JSON, orjson.dumps(_describe(name)))


def _is_language_model(row: dict[str, Any]) -> bool:
    return bool(row["pair"]) and row["pair"].endswith("-> language-model")


def _describe(name: str) -> JsonObject:
    return {"id": name, "object": "model", "created": STARTED_AT, "owned_by": "ekiben"}


async def _unknown(_: ServiceState, request: HttpRequest) -> Response:
    raise EkibenError("unknown-route", f"there is no {request.path}")


ROUTES: tuple[Route, ...] = (
    _inference_route(COMPLETION_ROUTE, CompletionRequest, read_completion),
    _inference_route(CHAT_ROUTE, ChatRequest, read_chat),
    ReadRoute(name=MODELS, handle=_list_models, error_format=openai_error_response),
)
MODEL = ReadRoute(name="/v1/models/{model}", handle=_show_model, error_format=openai_error_response)
UNKNOWN = ReadRoute(name="/v1/...", handle=_unknown, methods=METHODS, error_format=openai_error_response)


def match_prefix(path: str) -> Route | None:
    """Return the route of a path that contains a model name, or the one that refuses other paths of the API."""
    if path.startswith(f"{MODELS}/"):
        return MODEL
    return UNKNOWN if path.startswith("/v1/") else None
