"""Triton's model repository extension over HTTP: index, load and unload."""

from typing import Any

import orjson

from service.engine.context import RequestContext
from service.http.oip.control import list_index, load_model, unload_model
from service.http.route import InferenceRoute, Route, ServiceState
from service.http.wire.errors import oip_error_response
from service.http.wire.json_body import parse_json
from service.http.wire.messages import JSON, HttpRequest, Response

PREFIX = "/v2/repository/models/"


async def _index(state: ServiceState, _: HttpRequest, body: bytes, __: RequestContext) -> Response:
    return Response(JSON, orjson.dumps(list_index(state, _parse(body))))


async def _load(state: ServiceState, request: HttpRequest, body: bytes, context: RequestContext) -> Response:
    await load_model(state, _model_name(request), _parse(body), context)
    return Response(JSON, b"{}")


async def _unload(state: ServiceState, request: HttpRequest, body: bytes, context: RequestContext) -> Response:
    await unload_model(state, _model_name(request), _parse(body), context)
    return Response(JSON, b"{}")


def _parse(body: bytes) -> Any:
    """Return the JSON of a body, which may be empty."""
    return parse_json(body) if body.strip() else {}


def _model_name(request: HttpRequest) -> str:
    return request.path.removeprefix(PREFIX).split("/")[0]


ROUTES: tuple[Route, ...] = (
    InferenceRoute(name="/v2/repository/index", handle=_index, scope="models", error_format=oip_error_response),
)
ACTIONS = {
    action: InferenceRoute(
        name=f"{PREFIX}{{model}}/{action}", handle=handle, scope="admin", error_format=oip_error_response
    )
    for action, handle in (("load", _load), ("unload", _unload))
}


def match_prefix(path: str) -> Route | None:
    """Return the route of a path that names a model to load or to unload."""
    if not path.startswith(PREFIX):
        return None
    _, _, action = path.removeprefix(PREFIX).partition("/")
    return ACTIONS.get(action)
