"""The Open Inference Protocol, version 2, over HTTP: inference on the raw tensors of a model, metadata and readiness.

Invariant: a response holds the requested outputs in the requested order, computed by the version that it names.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import orjson

from service.contract.tensors import TensorSpec, from_rows, to_rows
from service.engine.context import RequestContext
from service.engine.sessions.model import Model
from service.errors import EkibenError
from service.http.route import InferenceRoute, ReadRoute, Route, ServiceState
from service.http.routes import oip_generate
from service.http.wire.errors import oip_error_response
from service.http.wire.messages import JSON, HttpRequest, Response, StreamedResponse
from service.http.wire.oip_request import ParsedRequest, json_size, parse_cached
from service.http.wire.oip_tensors import BYTES, DATATYPE_OF, DATATYPES, Array, build_arrays, pack_texts
from service.manifest import Manifest
from service.tasks.faults import describe_value, fault
from service.tasks.tensors import check_values, clear_padding

Arrays = Mapping[str, Array]
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
PATH_CACHE_SIZE = 64  # small, because a client can send long paths


async def _infer(state: ServiceState, request: HttpRequest, body: bytes, context: RequestContext) -> Response:
    model = _resolve_model(state, request.path)
    manifest = model.manifest
    context.model, context.version = manifest.name, manifest.version
    offset = json_size(request, len(body))
    parsed, request_id, data = parse_cached(body[:offset], manifest, has_bytes=offset < len(body))
    tensors = build_arrays(parsed.tensors, data, body, offset)
    if parsed.timeout_s:
        context.tighten_deadline(parsed.timeout_s)
    check_values(tensors, parsed.rules)
    if parsed.moves_batch_axis:
        tensors = {spec.name: to_rows(tensors[spec.name], spec) for spec in manifest.inputs}
    outputs = await state.runner.run(model.session, tensors, parsed.output_names, context=context)
    clear_padding(outputs, tensors, manifest)
    if parsed.moves_batch_axis:
        outputs = {spec.name: from_rows(outputs[spec.name], spec) for spec in manifest.outputs if spec.name in outputs}
    return _response(manifest, parsed, request_id, outputs)


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
    name, version = _parse_path(path)
    model = state.repository.get(name)
    current = model.manifest.version
    if version not in {None, current}:
        raise EkibenError("unknown-model", f"{name} serves version {current}, got {describe_value(version)}")
    return model


@lru_cache(PATH_CACHE_SIZE)
def _parse_path(path: str) -> tuple[str, str | None]:
    """Return the model name and the version in a path."""
    _, _, _, name, *rest = path.split("/")
    return name, rest[1] if len(rest) >= 2 and rest[0] == "versions" else None


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
    return Response(JSON, orjson.dumps({"name": "ekiben", "version": "2", "extensions": ["binary_tensor_data"]}))


async def _model_metadata(state: ServiceState, request: HttpRequest) -> Response:
    manifest = _resolve_model(state, request.path).manifest
    document = {
        "name": manifest.name,
        "versions": [manifest.version],
        "platform": "onnx_onnxv1",
        "inputs": [_tensor_metadata(spec) for spec in manifest.inputs],
        "outputs": [_tensor_metadata(spec) for spec in manifest.outputs],
    }
    return Response(JSON, orjson.dumps(document))


def _tensor_metadata(spec: TensorSpec) -> dict[str, Any]:
    shape = [-1 if isinstance(axis, str) else axis for axis in spec.shape]
    return {"name": spec.name, "datatype": DATATYPES[spec.dtype], "shape": shape}


async def _model_ready(state: ServiceState, request: HttpRequest) -> Response:
    if state.draining:
        raise EkibenError("not-ready", "the service is shutting down")
    name = _resolve_model(state, request.path).manifest.name
    return Response(JSON, orjson.dumps({"name": name, "ready": True, "live": True}))


async def _unknown(_: ServiceState, request: HttpRequest) -> Response:
    raise EkibenError("unknown-route", f"there is no {request.path}")


ROUTES = tuple(
    ReadRoute(name=name, handle=_server_metadata, error_format=oip_error_response) for name in ("/v2", "/v2/")
)
UNKNOWN = ReadRoute(name="/v2/...", handle=_unknown, methods=METHODS, error_format=oip_error_response)
MODEL_ROUTES: dict[tuple[str, ...], Route] = {
    (): ReadRoute(name="/v2/models/{model}", handle=_model_metadata, error_format=oip_error_response),
    ("ready",): ReadRoute(name="/v2/models/{model}/ready", handle=_model_ready, error_format=oip_error_response),
    **{
        (action,): InferenceRoute(name=f"/v2/models/{{model}}/{action}", handle=handle, error_format=oip_error_response)
        for action, handle in (("infer", _infer), ("generate", _generate), ("generate_stream", _generate_stream))
    },
}


def match_prefix(path: str) -> Route | None:
    """Return the route of a path that contains a model name and perhaps a version."""
    if not path.startswith("/v2/models/"):
        return UNKNOWN if path.startswith("/v2/") else None
    _, *rest = path.removeprefix("/v2/models/").split("/")
    action = rest[2:] if len(rest) >= 2 and rest[0] == "versions" else rest
    return MODEL_ROUTES.get(tuple(action), UNKNOWN)
