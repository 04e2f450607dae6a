"""The Open Inference Protocol, version 2, over HTTP: inference on the raw tensors of a model, and what is said of it.

Invariant: a response holds the requested outputs in the requested order, computed by the version that it names.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import orjson

from service.engine.context import RequestContext
from service.engine.sessions.model import Model
from service.errors import EkibenError
from service.http.oip.inference import infer
from service.http.oip.models import check_ready, model_config, model_metadata, resolve_model, server_metadata
from service.http.oip.statistics import model_statistics
from service.http.route import InferenceHandler, InferenceRoute, ReadHandler, ReadRoute, Route, ServiceState
from service.http.routes import oip_control, oip_generate
from service.http.routes.metrics import merged_samples
from service.http.wire.errors import oip_error_response
from service.http.wire.messages import JSON, HttpRequest, Response, StreamedResponse
from service.http.wire.oip_request import ANY_VERSION, VERSION_FIELD, ParsedRequest, json_size, parse_cached
from service.http.wire.oip_tensors import BYTES, DATATYPE_OF, Array, build_arrays, pack_texts
from service.manifest import Manifest
from service.tasks.faults import fault

Arrays = Mapping[str, Array]
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
ALL_STATISTICS = "/v2/models/stats"
# Parts of the paths of Triton's other extensions.
LEFT_OUT = {
    "systemsharedmemory": "shared memory extensions",
    "cudasharedmemory": "shared memory extensions",
    "trace": "trace settings",
    "logging": "log settings",
}
PATH_CACHE_SIZE = 64  # small, because a client can send long paths


async def _infer(state: ServiceState, request: HttpRequest, body: bytes, context: RequestContext) -> Response:
    model = _resolve_model(state, request.path)
    context.model, context.version = model.manifest.name, model.manifest.version
    offset = json_size(request, len(body))
    parsed, request_id, data = parse_cached(body[:offset], model.manifest, has_bytes=offset < len(body))
    tensors = build_arrays(parsed.tensors, data, body, offset)
    outputs = await infer(state, model, parsed, tensors, context)
    return _response(model.manifest, parsed, request_id, outputs)


def _response(manifest: Manifest, parsed: ParsedRequest, request_id: str | None, outputs: Arrays) -> Response:
    raw = [_to_bytes(outputs[name]) for name, is_binary in parsed.binary_outputs.items() if is_binary]
    if request_id is not None or len(raw) < len(parsed.binary_outputs) or parsed.has_texts:
        head = _response_head(manifest, parsed, request_id, outputs)
    else:
        shapes = tuple([outputs[name].shape for name in parsed.output_names])
        heads = parsed.response_heads
        head = heads.get(shapes) or heads.setdefault(shapes, _response_head(manifest, parsed, None, outputs))
    if not raw:
        return Response(JSON, head)
    headers = [("inference-header-content-length", str(len(head)))]
    return Response("application/octet-stream", b"".join([head, *raw]), headers)


def _response_head(manifest: Manifest, parsed: ParsedRequest, request_id: str | None, outputs: Arrays) -> bytes:
    """Return the JSON of a response, with the numbers of the outputs that are not sent as bytes."""
    document: dict[str, Any] = {"model_name": manifest.name, "model_version": manifest.version}
    if request_id is not None:
        document["id"] = request_id
    document["outputs"] = entries = []
    for name, is_binary in parsed.binary_outputs.items():
        value = outputs[name]
        entry: dict[str, Any] = {"name": name, "datatype": DATATYPE_OF[value.dtype], "shape": value.shape}
        if is_binary:
            entry["parameters"] = {"binary_data_size": len(pack_texts(value)) if value.dtype == BYTES else value.nbytes}
        else:
            _check_json(name, value)
            entry["data"] = value.ravel().tolist() if value.dtype == BYTES else np.ascontiguousarray(value).ravel()
        entries.append(entry)
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def _to_bytes(value: Array) -> bytes:
    return pack_texts(value) if value.dtype == BYTES else value.tobytes()


def _check_json(name: str, value: Array) -> None:
    """Raise EkibenError unless JSON can hold the output: the logits of a language model may be -inf."""
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        detail = f"output {name!r} holds -inf, which JSON cannot hold: request it with `binary_data`"
        raise fault("/outputs", detail)


def _resolve_model(state: ServiceState, path: str) -> Model:
    """Return the model that a path names; a version in the path must be the one that serves."""
    return resolve_model(state, *_parse_path(path))


@lru_cache(PATH_CACHE_SIZE)
def _parse_path(path: str) -> tuple[str, str | None]:
    """Return the model name and the version in a path."""
    _, _, _, name, *rest = path.split("/")
    return name, rest[1] if len(rest) >= 2 and rest[0] == "versions" else None


def _names_version(path: str, body: bytes) -> bool:
    return _parse_path(path)[1] not in {None, ANY_VERSION} or VERSION_FIELD.search(body) is not None


async def _generate(state: ServiceState, request: HttpRequest, body: bytes, context: RequestContext) -> Response:
    model = _resolve_model(state, request.path)
    context.model, context.version = model.manifest.name, model.manifest.version
    return await oip_generate.answer(state, model, body, context)


async def _generate_stream(
    state: ServiceState, request: HttpRequest, body: bytes, context: RequestContext
) -> StreamedResponse:
    model = _resolve_model(state, request.path)
    context.model, context.version = model.manifest.name, model.manifest.version
    return await oip_generate.answer_stream(state, model, body, context)


async def _server_metadata(_: ServiceState, __: HttpRequest) -> Response:
    return Response(JSON, orjson.dumps(server_metadata()))


async def _model_metadata(state: ServiceState, request: HttpRequest) -> Response:
    return Response(JSON, orjson.dumps(model_metadata(_resolve_model(state, request.path).manifest)))


async def _model_config(state: ServiceState, request: HttpRequest) -> Response:
    return Response(JSON, orjson.dumps(model_config(_resolve_model(state, request.path).manifest)))


async def _model_ready(state: ServiceState, request: HttpRequest) -> Response:
    name = check_ready(state, *_parse_path(request.path))
    return Response(JSON, orjson.dumps({"name": name, "ready": True, "live": True}))


async def _statistics(state: ServiceState, request: HttpRequest) -> Response:
    name, version = ("", None) if request.path == ALL_STATISTICS else _parse_path(request.path)
    return Response(JSON, orjson.dumps(model_statistics(state, merged_samples(state), name, version)))


async def _unknown(_: ServiceState, request: HttpRequest) -> Response:
    parts = frozenset(request.path.split("/"))
    left_out = next((subject for part, subject in LEFT_OUT.items() if part in parts), None)
    reason = f"; {left_out} of Triton are left out" if left_out else ""
    raise EkibenError("unknown-route", f"there is no {request.path}{reason}")


def _read(name: str, handle: ReadHandler) -> ReadRoute:
    return ReadRoute(name=name, handle=handle, error_format=oip_error_response)


def _inference(name: str, handle: InferenceHandler) -> InferenceRoute:
    return InferenceRoute(name=name, handle=handle, error_format=oip_error_response, names_version=_names_version)


ROUTES: tuple[Route, ...] = (
    _read("/v2", _server_metadata),
    _read(ALL_STATISTICS, _statistics),
    *oip_control.ROUTES,
)
UNKNOWN = ReadRoute(name="/v2/...", handle=_unknown, methods=METHODS, error_format=oip_error_response)
MODEL_ROUTES: dict[tuple[str, ...], Route] = {
    (): _read("/v2/models/{model}", _model_metadata),
    ("config",): _read("/v2/models/{model}/config", _model_config),
    ("ready",): _read("/v2/models/{model}/ready", _model_ready),
    ("stats",): _read("/v2/models/{model}/stats", _statistics),
    ("infer",): _inference("/v2/models/{model}/infer", _infer),
    ("generate",): _inference("/v2/models/{model}/generate", _generate),
    ("generate_stream",): _inference("/v2/models/{model}/generate_stream", _generate_stream),
}


def match_prefix(path: str) -> Route | None:
    """Return the route of a path that contains a model name and perhaps a version."""
    if not path.startswith("/v2/models/"):
        return (oip_control.match_prefix(path) or UNKNOWN) if path.startswith("/v2/") else None
    _, *rest = path.removeprefix("/v2/models/").split("/")
    action = rest[2:] if len(rest) >= 2 and rest[0] == "versions" else rest
    return MODEL_ROUTES.get(tuple(action), UNKNOWN)
