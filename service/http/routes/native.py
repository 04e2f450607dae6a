"""The inference endpoints and the model list: parse a body, call the handler of the task, write the response."""

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any
from urllib.parse import parse_qsl

import orjson

from service.contract.pairs import TaskName
from service.engine.context import RequestContext
from service.errors import EkibenError, Fault
from service.http.route import InferenceRoute, ReadRoute, Route, ServiceState
from service.http.wire.errors import problem_response
from service.http.wire.event_stream import event_stream, write_event
from service.http.wire.json_body import parse_json
from service.http.wire.messages import (
    JSON,
    HttpRequest,
    Response,
    StreamedResponse,
    check_json_type,
    media_type,
    parse_digits,
)
from service.http.wire.negotiation import quality
from service.tasks import TASKS
from service.tasks.body import JsonObject, RequestBody, parse_request
from service.tasks.classify import classify_upload
from service.tasks.description import describe_requests
from service.tasks.faults import invalid_request, json_pointer
from service.tasks.generate import GenerateRequest, stream_generate
from service.tasks.generation.pictures import generate_grid, resolve_seed
from service.tasks.heads.ranking import TopK
from service.tasks.model_lookup import ENDPOINTS, resolve_language_model, resolve_model
from service.tasks.predict import Threshold, check_fields, predict_upload

UPLOAD_TYPES = ("image/png", "image/jpeg")
UPLOADS: frozenset[TaskName] = frozenset({"classify", "predict"})  # tasks that take an image file as the body


class ClassifyQuery(RequestBody):
    """The query of POST /classify whose body is one image file."""

    top_k: TopK = 3


class PredictQuery(ClassifyQuery):
    """The query of POST /predict whose body is one image file."""

    threshold: Threshold = None


def _inference_route(task: TaskName) -> InferenceRoute:
    async def handle(state: ServiceState, request: HttpRequest, body: bytes, context: RequestContext) -> Response:
        content_type = media_type(request)
        if content_type in UPLOAD_TYPES and task in UPLOADS:
            answer_upload = _classify_upload if task == "classify" else _predict_upload
            return Response(JSON, orjson.dumps(await answer_upload(state, request, body, context)))
        check_json_type(request, *(UPLOAD_TYPES if task in UPLOADS else ()))
        if request.query:
            raise _unused_query(request)
        parsed = parse_request(TASKS[task].request, parse_json(body))
        model = resolve_model(state.repository, parsed.model, task)
        context.model, context.version = model.manifest.name, model.manifest.version
        if isinstance(parsed, GenerateRequest) and _prefers_png(request.header("accept")):
            png, seed = await generate_grid(model, state.runner, parsed, context)
            return Response("image/png", png, [("x-seed", str(seed))])
        return Response(JSON, orjson.dumps(await TASKS[task].handle(model, state.runner, parsed, context)))

    return InferenceRoute(name=ENDPOINTS[task], handle=handle)


def _prefers_png(accept: str) -> bool:
    """Return whether a client that accepts a picture prefers it to JSON; without a word it gets JSON."""
    weight = quality(accept, "image/png") if "image/" in accept else 0.0
    return weight > 0 and weight >= quality(accept, "application/json")


async def _classify_upload(
    state: ServiceState, request: HttpRequest, body: bytes, context: RequestContext
) -> JsonObject:
    query = parse_request(ClassifyQuery, _read_query(request))
    model = resolve_model(state.repository, query.model, "classify")
    context.model, context.version = model.manifest.name, model.manifest.version
    return await classify_upload(model, state.runner, body, query.top_k, context)


async def _predict_upload(
    state: ServiceState, request: HttpRequest, body: bytes, context: RequestContext
) -> JsonObject:
    query = parse_request(PredictQuery, _read_query(request))
    model = resolve_model(state.repository, query.model, "predict")
    context.model, context.version = model.manifest.name, model.manifest.version
    check_fields(query, model.manifest)
    return await predict_upload(model, state.runner, body, vars(query), context)


def _read_query(request: HttpRequest) -> dict[str, Any]:
    """Return the parameters of a query; those that hold numbers as numbers. Raises EkibenError for one given twice."""
    pairs = parse_qsl(request.query, keep_blank_values=True)
    query: dict[str, Any] = dict(pairs)
    if len(query) < len(pairs):
        names = [name for name, _ in pairs]
        twice = dict.fromkeys(name for name in names if names.count(name) > 1)
        raise invalid_request(
            [Fault(pointer=json_pointer(name), detail="this parameter is given twice") for name in twice]
        )
    top_k = parse_digits(query.get("top_k", ""))
    if top_k is not None:
        query["top_k"] = top_k
    with suppress(KeyError, ValueError):
        query["threshold"] = float(query["threshold"])
    return query


def _unused_query(request: HttpRequest) -> EkibenError:
    """The error of parameters in the query that belong into the body, where the route would not see them."""
    names = [name for name, _ in parse_qsl(request.query, keep_blank_values=True)] or [request.query]
    detail = "not a parameter of the query of a request with a JSON body, which holds all fields"
    return invalid_request([Fault(pointer=json_pointer(name), detail=detail) for name in names])


async def _stream(state: ServiceState, request: HttpRequest, body: bytes, context: RequestContext) -> StreamedResponse:
    check_json_type(request)
    if request.query:
        raise _unused_query(request)
    parsed = parse_request(GenerateRequest, parse_json(body))
    model = resolve_language_model(state.repository, parsed.model)
    context.model, context.version = model.manifest.name, model.manifest.version
    seed = resolve_seed(parsed)
    events = stream_generate(model, state.runner, parsed, seed, context)
    return event_stream(_write_events(events), _error_event, [("x-seed", str(seed))])


async def _write_events(events: AsyncGenerator[JsonObject, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(events):
        async for event in events:
            yield write_event(event, "end" if "seed" in event else "")


def _error_event(error: EkibenError) -> bytes:
    return b"event: error\ndata: %s\n\n" % problem_response(error).body


async def _list_models(state: ServiceState, _: HttpRequest) -> Response:
    return Response(JSON, orjson.dumps({"models": state.repository.list_models()}))


async def _show_model(state: ServiceState, request: HttpRequest) -> Response:
    name = request.path.removeprefix("/models/")
    description = state.repository.describe_model(name)
    with suppress(EkibenError):  # it is not READY
        manifest = state.repository.get(name).manifest
        if manifest.version == description["version"]:
            description["requests"] = describe_requests(manifest)
    return Response(JSON, orjson.dumps(description))


ROUTES: tuple[Route, ...] = (
    *(_inference_route(task) for task in ENDPOINTS),
    InferenceRoute(name="/generate/stream", handle=_stream),
    ReadRoute(name="/models", handle=_list_models),
)
MODEL = ReadRoute(name="/models/{model}", handle=_show_model)


def match_prefix(path: str) -> ReadRoute | None:
    """Return the route of a path that contains a model name."""
    return MODEL if path.startswith("/models/") else None
