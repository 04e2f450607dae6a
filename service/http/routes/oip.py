"""The Open Inference Protocol, version 2, over HTTP: a model's own tensors in and out, as JSON or as bytes.

Invariant: an answer holds the outputs that were asked for, in that order, computed by the version that it names; only
what is written in `EXTENSIONS` of the protocol is claimed, and a parameter that would change an answer is not ignored.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from service.bundle import Manifest, TensorSpec
from service.engine.model import Model
from service.errors import EkibenError
from service.http.deadline import at_most
from service.http.route import Host, Page, Route, Work, in_oip
from service.http.wire.json_body import read_json
from service.http.wire.messages import JSON, Reply, Request, media_type, whole_number
from service.http.wire.oip_json import read_tensors
from service.http.wire.oip_tensors import (
    DATATYPES,
    Array,
    Tensor,
    arrays,
    check_fields,
    output_entry,
    read_inputs,
    take_data,
)
from service.tasks.body import describe, pointer, refuse, wrong
from service.tasks.tensors import Rule, check_values, clear_padding, read_rules

EXTENSIONS = ("binary_tensor_data",)
PLATFORM = "onnx_onnxv1"
BINARY = "application/octet-stream"
MEDIA_TYPES = {"", "application/json", "application/octet-stream"}
REQUEST_FIELDS = {"id", "parameters", "inputs", "outputs"}
OUTPUT_FIELDS = {"name", "parameters"}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
MAX_TIMEOUT_US = 24 * 3600 * 10**6
MOST_KEPT, LONGEST_KEPT = 256, 2048  # heads, bytes of one
MOST_PATHS = 64  # remembered; a client may make them long


class Ask(NamedTuple):
    """What the JSON of a request asks for; `wanted` says of each output whether it is answered as bytes."""

    timeout_s: float
    wanted: dict[str, bool]
    outputs: tuple[str, ...]
    tensors: Sequence[Tensor]
    rules: Sequence[Rule]
    heads: dict[tuple[Any, ...], bytes]  # shapes of the outputs -> the JSON before them, if all are answered as bytes


_kept: dict[tuple[str, str, bytes], Ask] = {}  # by what JSON says without numbers and id: clients repeat it


async def _infer(host: Host, request: Request, body: bytes) -> Reply:
    model = _model(host, request.path)
    manifest = model.manifest
    offset = _head_size(request, len(body))
    ask, request_id, data = _understand(body[:offset], manifest, is_all=offset == len(body))
    tensors = arrays(ask.tensors, data, body, offset)
    if ask.timeout_s:
        at_most(ask.timeout_s, request.came)
    check_values(tensors, ask.rules)
    outputs = await host.runner.run(model.session, tensors, ask.outputs, came=request.came)
    clear_padding(outputs, tensors, manifest)
    return _reply(manifest, ask, request_id, outputs)


def _understand(head: bytes, manifest: Manifest, *, is_all: bool) -> tuple[Ask, str | None, Sequence[Any]]:
    """What is asked, under which id, and the `data` of each tensor; if the head `is_all`, no other is like it."""
    ask = None if is_all else _kept.get((manifest.name, manifest.version, head))
    if ask is not None:
        return ask, None, (None,) * len(ask.tensors)
    document = read_tensors(head) or read_json(head)
    data, request_id = take_data(document), _take_id(document)
    frame = _frame(document)
    ask = _kept.get((manifest.name, manifest.version, frame))
    if ask is None:
        ask = _read(document, manifest)
        _keep(frame, ask, manifest)
    if request_id is None and not is_all and all(numbers is None for numbers in data):
        _keep(head, ask, manifest)
    return ask, request_id, data


def _take_id(document: Any) -> str | None:
    """Remove the `id` from a document."""
    if type(document) is not dict or "id" not in document:
        return None
    request_id = document.pop("id")
    if type(request_id) is not str:
        raise wrong("/id", "a string", request_id)
    return request_id


def _frame(document: Any) -> bytes:
    try:
        return orjson.dumps(document)
    except orjson.JSONEncodeError:  # nested deeper than anything that is asked here
        return b""


def _keep(key: bytes, ask: Ask, manifest: Manifest) -> None:
    if 0 < len(key) <= LONGEST_KEPT:
        if len(_kept) >= MOST_KEPT:
            _kept.clear()
        _kept[manifest.name, manifest.version, key] = ask


def _read(document: Any, manifest: Manifest) -> Ask:
    """What a document asks, its tensors' data and its id aside."""
    if type(document) is not dict:
        raise wrong("", "a JSON object", document)
    check_fields(document, REQUEST_FIELDS, "")
    parameters = _parameters(document.get("parameters"), {"timeout", "binary_data_output"}, "/parameters")
    timeout_s = _limit(parameters["timeout"]) if "timeout" in parameters else 0.0
    wanted = _wanted(document.get("outputs"), manifest, _flag(parameters, "binary_data_output", "/parameters"))
    tensors = read_inputs(document.get("inputs"), manifest)
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    rules = read_rules(shapes, manifest, {tensor.name: tensor.where for tensor in tensors})
    return Ask(timeout_s, wanted, tuple(wanted), tensors, rules, {})


def _reply(manifest: Manifest, ask: Ask, request_id: str | None, outputs: Mapping[str, Array]) -> Reply:
    raw = [outputs[name].tobytes() for name, as_bytes in ask.wanted.items() if as_bytes]
    if request_id is not None or len(raw) < len(ask.wanted):
        head = _announce(manifest, ask, request_id, outputs)
    else:
        shapes = tuple([outputs[name].shape for name in ask.outputs])
        head = ask.heads.get(shapes) or ask.heads.setdefault(shapes, _announce(manifest, ask, None, outputs))
    if not raw:
        return Reply(JSON, head)
    return Reply(BINARY, b"".join([head, *raw]), [("inference-header-content-length", str(len(head)))])


def _announce(manifest: Manifest, ask: Ask, request_id: str | None, outputs: Mapping[str, Array]) -> bytes:
    """The JSON of an answer, with the numbers of those outputs that are not answered as bytes."""
    answer: dict[str, Any] = {"model_name": manifest.name, "model_version": manifest.version}
    if request_id is not None:
        answer["id"] = request_id
    answer["outputs"] = entries = []
    for name, as_bytes in ask.wanted.items():
        value = outputs[name]
        entry = output_entry(name, value)
        if as_bytes:
            entry["parameters"] = {"binary_data_size": value.nbytes}
        else:
            entry["data"] = value.ravel()
        entries.append(entry)
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def _head_size(request: Request, size: int) -> int:
    """Where the JSON of a body of `size` bytes ends."""
    if request.header("content-type") not in MEDIA_TYPES and media_type(request) not in MEDIA_TYPES:
        expected = "application/json or application/octet-stream"
        raise EkibenError("unsupported-media-type", f"expected content type {expected}, got {media_type(request)}")
    given = request.header("inference-header-content-length")
    if not given:
        return size
    length = whole_number(given)
    if length is None or length > size:
        expected = f"expected 0 to {size}, the size of the body"
        raise EkibenError("invalid-request", f"Inference-Header-Content-Length: {expected}, got {given[:40]!r}")
    return length


def _parameters(given: Any, known: set[str], where: str) -> dict[str, Any]:
    if given is None:
        return {}
    if type(given) is not dict:
        raise wrong(where, "an object", given)
    unknown = given.keys() - known
    if unknown:
        raise refuse(where + pointer(min(unknown)), f"not supported here; supported: {', '.join(sorted(known))}")
    return given


def _flag(parameters: dict[str, Any], name: str, where: str, default: bool = False) -> bool:
    value = parameters.get(name, default)
    if type(value) is not bool:
        raise wrong(f"{where}/{name}", "true or false", value)
    return value


def _limit(timeout_us: Any) -> float:
    """In seconds; 0 for none."""
    if type(timeout_us) is not int or not 0 <= timeout_us <= MAX_TIMEOUT_US:
        raise wrong("/parameters/timeout", f"0 (none) to {MAX_TIMEOUT_US} microseconds", timeout_us)
    return timeout_us / 1e6


def _wanted(entries: Any, manifest: Manifest, as_bytes: bool) -> dict[str, bool]:
    """The outputs that are asked for, and whether each is answered as bytes; all of them if none is named."""
    if entries is None or entries == []:
        return {output.name: as_bytes for output in manifest.outputs}
    if type(entries) is not list:
        raise wrong("/outputs", "a list of outputs", entries)
    known = {output.name for output in manifest.outputs}
    wanted: dict[str, bool] = {}
    for number, entry in enumerate(entries):
        where = f"/outputs/{number}"
        if type(entry) is not dict:
            raise wrong(where, "an object with name and parameters", entry)
        check_fields(entry, OUTPUT_FIELDS, where)
        name = entry.get("name")
        if type(name) is not str or name not in known or name in wanted:
            expected = f"one of {', '.join(output.name for output in manifest.outputs)}, each once"
            raise wrong(f"{where}/name", expected, name)
        parameters = _parameters(entry.get("parameters"), {"binary_data"}, f"{where}/parameters")
        wanted[name] = _flag(parameters, "binary_data", f"{where}/parameters", as_bytes)
    return wanted


def _model(host: Host, path: str) -> Model:
    """The model that a path names, in the version that it names, if it names one."""
    name, wanted = _names(path)
    model = host.repository.get(name)
    version = model.manifest.version
    if wanted not in {None, version}:
        raise EkibenError("unknown-model", f"{name} serves version {version}, got {describe(wanted)}")
    return model


@lru_cache(MOST_PATHS)
def _names(path: str) -> tuple[str, str | None]:
    """The model and the version that a path names."""
    _, _, _, name, *rest = path.split("/")
    return name, rest[1] if len(rest) >= 2 and rest[0] == "versions" else None


async def _server(_: Host, __: Request) -> Reply:
    return Reply(JSON, orjson.dumps({"name": "ekiben", "version": "2", "extensions": EXTENSIONS}))


async def _metadata(host: Host, request: Request) -> Reply:
    manifest = _model(host, request.path).manifest
    document = {
        "name": manifest.name,
        "versions": [manifest.version],
        "platform": PLATFORM,
        "inputs": [_tensor(spec) for spec in manifest.inputs],
        "outputs": [_tensor(spec) for spec in manifest.outputs],
    }
    return Reply(JSON, orjson.dumps(document))


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    shape = [-1 if isinstance(axis, str) else axis for axis in spec.shape]
    return {"name": spec.name, "datatype": DATATYPES[spec.dtype], "shape": shape}


async def _ready(host: Host, request: Request) -> Reply:
    if host.draining:
        raise EkibenError("not-ready", "the service is shutting down")
    name = _model(host, request.path).manifest.name
    return Reply(JSON, orjson.dumps({"name": name, "ready": True, "live": True}))


async def _unknown(_: Host, request: Request) -> Reply:
    raise EkibenError("unknown-route", f"there is no {request.path}")


ROUTES = (Page(name="/v2", answer=_server, dialect=in_oip), Page(name="/v2/", answer=_server, dialect=in_oip))
MODEL = Page(name="/v2/models/{model}", answer=_metadata, dialect=in_oip)
UNKNOWN = Page(name="/v2/...", answer=_unknown, methods=METHODS, dialect=in_oip)
READY = Page(name="/v2/models/{model}/ready", answer=_ready, dialect=in_oip)
INFER = Work(name="/v2/models/{model}/infer", answer=_infer, dialect=in_oip)


def below(path: str) -> Route | None:
    """The route of a path that holds the name of a model, and perhaps its version."""
    if not path.startswith("/v2/models/"):
        return UNKNOWN if path.startswith("/v2/") else None
    match path.removeprefix("/v2/models/").split("/"):
        case [_, "infer"] | [_, "versions", _, "infer"]:
            return INFER
        case [_, "ready"] | [_, "versions", _, "ready"]:
            return READY
        case [_] | [_, "versions", _]:
            return MODEL
        case _:
            return UNKNOWN
