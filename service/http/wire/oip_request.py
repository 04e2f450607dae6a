"""The JSON of an Open Inference Protocol request: parameters, input tensors and requested outputs.

Invariant: a parameter that would change the response is honoured or refused, never ignored. Clients repeat a request
with other numbers, so the result of parsing everything but the numbers and the `id` is cached.
"""

import re
from collections import OrderedDict
from typing import Any, NamedTuple

import orjson

from service.contract.tensors import TensorSpec, has_rows_first
from service.errors import EkibenError
from service.http.wire.json_body import parse_json
from service.http.wire.messages import HttpRequest, media_type, parse_digits
from service.http.wire.oip_json import parse_tensors
from service.http.wire.oip_parameters import NEUTRAL_OF_REQUEST, parse_object, parse_parameters
from service.http.wire.oip_tensors import TEXTS, InputTensor, parse_inputs, pop_data, takes_texts
from service.manifest import Manifest
from service.tasks.faults import fault, type_fault
from service.tasks.tensors import ValueRule, value_rules

MEDIA_TYPES = {"", "application/json", "application/octet-stream"}
FIELDS = {"id", "model_name", "model_version", "parameters", "inputs", "outputs"}
# Names the version in use for clients that insist on integers.
ANY_VERSION = "1"
# In a body that names another one.
VERSION_FIELD = re.compile(rb'"model_version"\s*:\s*"(?!(?:%b)?")' % ANY_VERSION.encode())
MAX_CLASSES = 1 << 20
MAX_TIMEOUT_US = 24 * 3600 * 10**6
CACHE_SIZE = 256  # entries
MAX_CACHED_BYTES = 2048  # of the key of one entry


class ParsedRequest(NamedTuple):
    """A request without its numbers and `id`."""

    timeout_s: float  # 0 for none
    binary_outputs: dict[str, bool]  # whether each requested output is sent as bytes
    output_names: tuple[str, ...]
    tensors: tuple[InputTensor, ...]
    rules: tuple[ValueRule, ...]
    response_heads: dict[tuple[Any, ...], bytes]  # by the shapes of the outputs, if all are sent as bytes
    moves_batch_axis: bool  # between the tensors of the client and those of the engine
    has_texts: bool  # among the outputs
    reads_texts: bool = False  # the only tensor is `TEXTS`
    classes: dict[str, int] = {}  # noqa: RUF012 - never mutated; outputs that are sent as their highest values


# (model, version, cache key) -> request, the least recently used first
_cache: OrderedDict[tuple[str, str, bytes], ParsedRequest] = OrderedDict()


def json_size(request: HttpRequest, body_size: int) -> int:
    """Return the number of bytes of JSON at the start of the body; binary tensors follow."""
    if request.header("content-type") not in MEDIA_TYPES and media_type(request) not in MEDIA_TYPES:
        expected = "application/json or application/octet-stream"
        raise EkibenError("unsupported-media-type", f"expected content type {expected}, got {media_type(request)}")
    header = request.header("inference-header-content-length")
    if not header:
        return body_size
    size = parse_digits(header)
    if size is None or size > body_size:
        expected = f"expected 0 to {body_size}, the size of the body"
        raise EkibenError("invalid-request", f"Inference-Header-Content-Length: {expected}, got {header[:40]!r}")
    return size


def parse_cached(head: bytes, manifest: Manifest, *, has_bytes: bool) -> tuple[ParsedRequest, str | None, list[Any]]:
    """Parse the JSON `head` of a request, or return the cached result of an equal one.

    Returns the request, its `id`, and the `data` of each tensor (None for a tensor sent as bytes). If bytes follow the
    JSON (`has_bytes`), it often repeats unchanged, so `head` itself serves as a second cache key.
    """
    if has_bytes and (parsed := _get(head, manifest)):
        return parsed, None, [None] * len(parsed.tensors)
    parsed, request_id, data = parse_document(parse_tensors(head) or parse_json(head), manifest)
    if request_id is None and has_bytes and all(numbers is None for numbers in data):
        _put(head, parsed, manifest)
    return parsed, request_id, data


def parse_document(document: Any, manifest: Manifest) -> tuple[ParsedRequest, str | None, list[Any]]:
    """Parse a request whose JSON is read already, as `parse_cached`; `document` loses its `data` and `id`."""
    data, request_id = pop_data(document), _pop_id(document)
    try:
        key = orjson.dumps(document)
    except orjson.JSONEncodeError:  # nested too deep
        key = b""  # which is never cached
    parsed = _get(key, manifest)
    if parsed is None:
        parsed = _parse(document, manifest)
        _put(key, parsed, manifest)
    return parsed, request_id, data


def _get(key: bytes, manifest: Manifest) -> ParsedRequest | None:
    entry = manifest.name, manifest.version, key
    parsed = _cache.get(entry)
    if parsed is not None:
        _cache.move_to_end(entry)
    return parsed


def _put(key: bytes, parsed: ParsedRequest, manifest: Manifest) -> None:
    if 0 < len(key) <= MAX_CACHED_BYTES:
        _cache[manifest.name, manifest.version, key] = parsed
        if len(_cache) > CACHE_SIZE:
            _cache.popitem(last=False)


def _pop_id(document: dict[str, Any]) -> str | None:
    request_id = document.pop("id", None)
    if request_id is not None and type(request_id) is not str:
        raise type_fault("/id", "a string", request_id)
    return request_id


def _parse(document: dict[str, Any], manifest: Manifest) -> ParsedRequest:
    """Parse a document whose `data` and `id` were removed."""
    parse_object(document, FIELDS, "")
    _check_model(document, manifest)
    parameters = parse_parameters(document, {"timeout", "binary_data_output"}, "", NEUTRAL_OF_REQUEST)
    timeout_us = parameters.get("timeout", 0)
    if type(timeout_us) is not int or not 0 <= timeout_us <= MAX_TIMEOUT_US:
        raise type_fault("/parameters/timeout", f"0 (none) to {MAX_TIMEOUT_US} microseconds", timeout_us)
    all_binary = _parse_flag(parameters, "binary_data_output", "", default=False)
    binary_outputs, classes = _parse_outputs(document.get("outputs"), manifest, all_binary)
    tensors = parse_inputs(document.get("inputs"), manifest)
    reads_texts = takes_texts(manifest) and tensors[0].name == TEXTS.name
    rules: tuple[ValueRule, ...] = ()
    if not reads_texts:
        shapes = {tensor.name: tensor.shape for tensor in tensors}
        rules = value_rules(shapes, manifest, {tensor.name: tensor.where for tensor in tensors})
    moves_batch_axis = not has_rows_first((*manifest.inputs, *manifest.outputs))
    has_texts = bool(classes) or any(spec.dtype == "string" for spec in manifest.outputs)
    return ParsedRequest(
        timeout_us / 1e6,
        binary_outputs,
        tuple(binary_outputs),
        tensors,
        rules,
        {},
        moves_batch_axis,
        has_texts,
        reads_texts,
        classes,
    )


def _check_model(document: dict[str, Any], manifest: Manifest) -> None:
    """Raise EkibenError unless the body names no other model or version than its path."""
    name, version = document.get("model_name"), document.get("model_version")
    if name not in (None, manifest.name):
        raise type_fault("/model_name", f"{manifest.name!r}, as in the path", name)
    if version not in (None, "", ANY_VERSION, manifest.version):
        raise type_fault("/model_version", f"{manifest.version!r} or {ANY_VERSION!r}", version)


def _parse_flag(parameters: dict[str, Any], name: str, where: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
    if type(value) is not bool:
        raise type_fault(f"{where}/parameters/{name}", "true or false", value)
    return value


def _parse_outputs(entries: Any, manifest: Manifest, all_binary: bool) -> tuple[dict[str, bool], dict[str, int]]:
    """Return whether each requested output is sent as bytes, and the number of classes of those that ask for classes.

    A request that names no output requests all of them.
    """
    specs = {output.name: output for output in manifest.outputs}
    if entries is None or entries == []:
        return dict.fromkeys(specs, all_binary), {}
    if type(entries) is not list:
        raise type_fault("/outputs", "a list of outputs", entries)
    binary_outputs: dict[str, bool] = {}
    classes: dict[str, int] = {}
    for number, value in enumerate(entries):
        where = f"/outputs/{number}"
        entry = parse_object(value, {"name", "parameters"}, where, "an object with name and parameters")
        name = entry.get("name")
        if type(name) is not str or name not in specs or name in binary_outputs:
            raise type_fault(f"{where}/name", f"one of {', '.join(specs)}, each once", name)
        parameters = parse_parameters(entry, {"binary_data", "classification"}, where)
        binary_outputs[name] = _parse_flag(parameters, "binary_data", where, default=all_binary)
        # Clients send 0 where no classes are asked for.
        if num_classes := parameters.get("classification", 0):
            classes[name] = _parse_classes(num_classes, specs[name], f"{where}/parameters/classification")
    return binary_outputs, classes


def _parse_classes(num_classes: Any, spec: TensorSpec, where: str) -> int:
    if type(num_classes) is not int or not 0 < num_classes <= MAX_CLASSES:
        raise type_fault(where, f"0 (none) to {MAX_CLASSES} classes", num_classes)
    if len(spec.row_shape) != 1 or spec.dtype in {"bool", "string"}:
        raise fault(where, f"expected an output of one list of numbers an item, {spec.name!r} is {describe(spec)}")
    return num_classes


def describe(spec: TensorSpec) -> str:
    return f"{spec.dtype} [{', '.join(map(str, spec.shape))}]"
