"""Triton's generate extension of the Open Inference Protocol: one text in, one text or a stream of its parts out.

Invariant: the text is that of POST /generate; `parameters` holds that route's fields, under the same names.
"""

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import orjson

from service.engine.context import RequestContext
from service.engine.sessions.model import Model
from service.errors import EkibenError, Fault
from service.http.route import ServiceState
from service.http.wire.errors import oip_error_response
from service.http.wire.event_stream import event_stream, write_event
from service.http.wire.json_body import parse_json
from service.http.wire.messages import JSON, Response, StreamedResponse
from service.tasks.body import JsonObject, parse_request
from service.tasks.faults import fault, invalid_request, type_fault
from service.tasks.generate import GenerateRequest, generate, stream_generate
from service.tasks.generation.pictures import resolve_seed
from service.tasks.model_lookup import check_language_model

DETAILS = ("finish_reason", "tokens", "logprobs")
FIELDS = ("text_input", "parameters", "id")
# Parameters of Triton's own clients, with the values that ask for what happens anyway.
NEUTRAL = {"stream": (True, False), "exclude_input_in_output": (True,)}

REQUEST_SCHEMA: JsonObject = {
    "type": "object",
    "required": ["text_input"],
    "additionalProperties": False,
    "properties": {
        "text_input": {"type": "string", "description": "the prompt"},
        "id": {"type": "string", "description": "returned with the answer"},
        "parameters": {
            "type": "object",
            "description": "the fields of POST /generate under the same names, but model and prompt; `details`: true "
            "returns finish_reason, tokens, seed and log probabilities",
        },
    },
    "example": {"text_input": "The import statement ", "parameters": {"max_tokens": 64, "seed": 1}},
}


async def answer(state: ServiceState, model: Model, body: bytes, context: RequestContext) -> Response:
    """Answer POST /v2/models/NAME/generate."""
    request_id, with_details, request = _read(model, parse_json(body))
    with _pointers_of_parameters():
        answer = await generate(model, state.runner, request, context)
    [completion] = answer["completions"]
    details: JsonObject = {key: completion[key] for key in DETAILS if key in completion}
    document = _write(
        model, request_id, completion["text"], {**details, "seed": answer["seed"]} if with_details else None
    )
    return Response(JSON, orjson.dumps(document))


async def answer_stream(state: ServiceState, model: Model, body: bytes, context: RequestContext) -> StreamedResponse:
    """Answer POST /v2/models/NAME/generate_stream; the last event has details with a finish_reason."""
    request_id, with_details, request = _read(model, parse_json(body))
    seed = resolve_seed(request)

    async def write() -> AsyncGenerator[bytes, None]:
        with _pointers_of_parameters():
            async with aclosing(stream_generate(model, state.runner, request, seed, context)) as events:
                async for event in events:
                    if "index" not in event:
                        continue
                    is_end = "finish_reason" in event
                    details: JsonObject = {key: event[key] for key in DETAILS if key in event}
                    included = ({**details, "seed": seed} if is_end else details) if with_details else None
                    if is_end and included is None:
                        included = {"finish_reason": event["finish_reason"]}
                    yield write_event(_write(model, request_id, event["text"], included))

    return event_stream(write(), _error_event)


def _read(model: Model, content: Any) -> tuple[str | None, bool, GenerateRequest]:
    """Return the id, whether details are wanted, and the request as that of POST /generate. Raises EkibenError."""
    check_language_model(model)
    if not isinstance(content, dict):
        raise type_fault("", "a JSON object", content)
    if unknown := [name for name in content if name not in FIELDS]:
        raise fault(f"/{unknown[0]}", f"unknown field; the fields are {', '.join(FIELDS)}")
    text, parameters, request_id = (content.get(name) for name in FIELDS)
    if not isinstance(text, str):
        raise type_fault("/text_input", "a text", text)
    if request_id is not None and not isinstance(request_id, str):
        raise type_fault("/id", "a text", request_id)
    if parameters is None:
        parameters = {}
    if not isinstance(parameters, dict):
        raise type_fault("/parameters", "an object", parameters)
    fields = {
        name: value
        for name, value in parameters.items()
        if value is not None and not any(value is neutral for neutral in NEUTRAL.get(name, ()))
    }
    with_details = fields.pop("details", False)
    if not isinstance(with_details, bool):
        raise type_fault("/parameters/details", "true or false", with_details)
    if isinstance(fields.get("stop"), str):
        fields["stop"] = [fields["stop"]]
    for name in ("model", "prompt"):
        if name in fields:
            raise fault(f"/parameters/{name}", "unknown field")
    with _pointers_of_parameters():
        request = parse_request(GenerateRequest, {**fields, "model": model.manifest.name, "prompt": text})
    return request_id, with_details, request


@contextmanager
def _pointers_of_parameters() -> Iterator[None]:
    """Within this context, an error points into the request of this route instead of that of POST /generate."""
    try:
        yield
    except EkibenError as error:
        if not error.faults:
            raise
        faults = [Fault(pointer=_pointer(place.pointer), detail=place.detail) for place in error.faults]
        if error.slug == "invalid-request":
            raise invalid_request(faults) from error
        raise EkibenError(error.slug, error.detail, tuple(faults), retry_after_s=error.retry_after_s) from error


def _pointer(pointer: str) -> str:
    return pointer.replace("/prompt", "/text_input", 1) if pointer.startswith("/prompt") else f"/parameters{pointer}"


def _write(model: Model, request_id: str | None, text: str, details: JsonObject | None) -> JsonObject:
    document: JsonObject = {"model_name": model.manifest.name, "model_version": model.manifest.version}
    if request_id is not None:
        document["id"] = request_id
    document["text_output"] = text
    if details:
        document["details"] = details
    return document


def _error_event(error: EkibenError) -> bytes:
    return b"data: %s\n\n" % oip_error_response(error).body
