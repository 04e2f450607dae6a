"""Parsing and caching of Open Inference Protocol requests; tests of the routes cover each kind of invalid request."""

from typing import Any

import orjson
import pytest

from service.errors import EkibenError
from service.http.wire import oip_request
from service.http.wire.asgi import AsgiRequest
from service.http.wire.oip_request import CACHE_SIZE, ParsedRequest, json_size, parse_cached
from tests.service.tasks.test_tensors import manifest_of

MANIFEST = manifest_of("image-classifier")
ENTRY = {"name": "images", "shape": [1, 4, 4], "datatype": "UINT8"}
BINARY_ENTRY = {**ENTRY, "parameters": {"binary_data_size": 16}}


def request(**headers: bytes) -> AsgiRequest:
    pairs = [(name.replace("_", "-").encode(), value) for name, value in headers.items()]
    return AsgiRequest({"method": "POST", "path": "/x", "headers": pairs}, None, None)  # type: ignore[arg-type]


def parse(document: Any, *, has_bytes: bool = False) -> tuple[ParsedRequest, str | None, Any]:
    return parse_cached(orjson.dumps(document), MANIFEST, has_bytes=has_bytes)


def test_json_size_is_the_header_or_the_whole_body() -> None:
    assert json_size(request(), 9) == 9
    assert json_size(request(inference_header_content_length=b"7"), 9) == 7
    assert json_size(request(content_type=b"application/json; charset=utf-8"), 9) == 9


@pytest.mark.parametrize("value", [b"10", b"-1", b"x", b"9" * 40])
def test_json_size_beyond_the_body_is_refused(value: bytes) -> None:
    with pytest.raises(EkibenError, match="expected 0 to 9, the size of the body, got") as caught:
        json_size(request(inference_header_content_length=value), 9)
    assert caught.value.slug == "invalid-request"


def test_a_request_is_parsed() -> None:
    outputs = [{"name": "logits", "parameters": {"binary_data": True}}, {"name": "probabilities"}]
    document = {"id": "7", "inputs": [BINARY_ENTRY], "outputs": outputs, "parameters": {"timeout": 2_000_000}}
    parsed, request_id, data = parse(document, has_bytes=True)
    assert (parsed.timeout_s, request_id, list(data)) == (2.0, "7", [None])
    assert parsed.binary_outputs == {"logits": True, "probabilities": False}
    assert parsed.output_names == ("logits", "probabilities")
    assert [(tensor.name, tensor.shape, tensor.size_bytes) for tensor in parsed.tensors] == [("images", (1, 4, 4), 16)]


def test_a_request_has_the_rules_for_the_values_of_its_tensors() -> None:
    inputs = [
        {"name": name, "shape": shape, "datatype": "INT64"} for name, shape in (("lengths", [1]), ("ids", [1, 3]))
    ]
    parsed, _, _ = parse_cached(orjson.dumps({"inputs": inputs}), manifest_of("text-classifier"), has_bytes=False)
    assert {(rule.name, rule.pointer) for rule in parsed.rules} == {("lengths", "/inputs/0"), ("ids", "/inputs/1")}


def test_outputs_that_are_not_a_list_are_refused() -> None:
    with pytest.raises(EkibenError, match="expected a list of outputs, got an object") as caught:
        parse({"inputs": [BINARY_ENTRY], "outputs": {}})
    assert caught.value.faults[0].pointer == "/outputs"


def test_requests_that_differ_only_in_numbers_and_id_are_parsed_once() -> None:
    outputs = [{"name": "logits"}]
    parsed, _, _ = parse({"inputs": [{**ENTRY, "data": [0] * 16}], "outputs": outputs})
    for request_id, number in (("one", 0), (None, 1), ("other", 2), ("", 3), ('odd "\u20ac\n', 4)):
        id_field = {} if request_id is None else {"id": request_id}
        repeated = parse({**id_field, "inputs": [{**ENTRY, "data": [number] * 16}], "outputs": outputs})
        assert repeated[0] is parsed
        assert repeated[1:] == (request_id, [[number] * 16])


def test_requests_with_bytes_are_parsed_once_with_or_without_an_id() -> None:
    document = {"inputs": [BINARY_ENTRY], "outputs": [{"name": "logits"}]}
    parsed, _, _ = parse(document, has_bytes=True)
    for request_id in ("one", None, "other", None):
        id_field = {} if request_id is None else {"id": request_id}
        repeated = parse({**id_field, **document}, has_bytes=True)
        assert repeated[0] is parsed
        assert (repeated[1], list(repeated[2])) == (request_id, [None])


def test_the_least_recently_used_request_leaves_the_cache() -> None:
    def parse_numbered(number: int) -> ParsedRequest:
        return parse({"inputs": [ENTRY], "parameters": {"timeout": number}})[0]

    first, second = parse_numbered(1), parse_numbered(2)
    for number in range(3, CACHE_SIZE + 1):
        parse_numbered(number)
    assert parse_numbered(1) is first
    parse_numbered(CACHE_SIZE + 1)
    assert parse_numbered(1) is first
    assert parse_numbered(2) is not second


def test_a_request_beyond_the_size_limit_is_not_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    document = {"inputs": [BINARY_ENTRY], "parameters": {"timeout": 9_999}}
    monkeypatch.setattr(oip_request, "MAX_CACHED_BYTES", 10)
    assert parse(document, has_bytes=True)[0] is not parse(document, has_bytes=True)[0]
