"""The Open Inference Protocol of the application, byte by byte; tests/clients uses the official client."""

import time
from typing import Any

import numpy as np
import orjson
import pytest
from starlette.testclient import TestClient

from service.engine.context import RequestContext
from service.engine.limits import Limits
from service.engine.runner import Runner
from service.errors import EkibenError
from service.http.oip.models import EXTENSIONS
from service.http.routes import oip
from service.http.wire.asgi import AsgiRequest
from service.http.wire.messages import Response
from service.http.wire.oip_request import ParsedRequest
from service.manifest import Manifest
from tests.service.bundles import FAMILIES, NAMES, example_inputs, golden_cases
from tests.service.engine.fakes import manifest

DATATYPES = {"uint8": "UINT8", "int64": "INT64", "float32": "FP32"}
PIXELS = example_inputs("image-classifier", batch=1)["images"]
ENTRY = {"name": "images", "shape": [1, 4, 4], "datatype": "UINT8"}
GOOD = {"inputs": [{**ENTRY, "data": PIXELS.tolist()}]}
INFER = "/v2/models/tiny-images/infer"


def as_json(inputs: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"name": name, "shape": list(value.shape), "datatype": DATATYPES[value.dtype.name], "data": value.tolist()}
        for name, value in inputs.items()
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_json_tensors_give_the_outputs_of_the_graph(family: str, client: TestClient) -> None:
    case = golden_cases(family)[1]
    response = client.post(f"/v2/models/{NAMES[family]}/infer", json={"id": "7", "inputs": as_json(dict(case.inputs))})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    document = response.json()
    version = client.get(f"/models/{NAMES[family]}").json()["version"]
    assert (document["model_name"], document["model_version"], document["id"]) == (NAMES[family], version, "7")
    assert [output["name"] for output in document["outputs"]] == list(case.outputs)
    for output in document["outputs"]:
        expected = case.outputs[output["name"]]
        assert output["shape"] == list(expected.shape)
        assert output["datatype"] == DATATYPES[expected.dtype.name]
        got = np.array(output["data"], expected.dtype).reshape(expected.shape)
        if family == "series-tagger" and output["name"] in {"logits", "probabilities"}:
            is_padding = np.arange(expected.shape[1]) >= case.inputs["lengths"][:, None]
            assert not got[is_padding].any()
            expected = np.where(is_padding[:, :, None], 0, expected)
        np.testing.assert_allclose(got.astype(float), expected.astype(float), atol=1e-6, rtol=1e-5)


def binary(document: dict[str, Any], *tensors: bytes) -> tuple[bytes, dict[str, str]]:
    head = orjson.dumps(document)
    return head + b"".join(tensors), {"inference-header-content-length": str(len(head))}


def test_requests_with_the_same_json_are_computed_from_their_own_bytes(client: TestClient) -> None:
    document = {"inputs": [{**ENTRY, "parameters": {"binary_data_size": 16}}], "outputs": [{"name": "probabilities"}]}
    responses = []
    for pixels in (PIXELS, 255 - PIXELS, PIXELS):
        body, headers = binary(document, pixels.tobytes())
        responses.append(client.post(INFER, content=body, headers=headers).json()["outputs"])
        as_numbers = {"inputs": [{**ENTRY, "data": pixels.tolist()}], "outputs": document["outputs"]}
        assert client.post(INFER, json=as_numbers).json()["outputs"] == responses[-1]
    assert responses[0] == responses[2] != responses[1]
    body, headers = binary(document, PIXELS.tobytes()[:-1])
    assert client.post(INFER, content=body, headers=headers).status_code == 422


@pytest.mark.parametrize("as_bytes", [False, True])
def test_requests_that_differ_only_in_their_id_get_the_same_numbers(as_bytes: bool, client: TestClient) -> None:
    outputs = [{"name": "logits", "parameters": {"binary_data": as_bytes}}]

    def numbers(request_id: str | None, pixels: Any) -> Any:
        id_field = {} if request_id is None else {"id": request_id}
        if as_bytes:
            body, headers = binary(
                {**id_field, "inputs": [{**ENTRY, "parameters": {"binary_data_size": 16}}], "outputs": outputs},
                pixels.tobytes(),
            )
            response = client.post(INFER, content=body, headers=headers)
            size = int(response.headers["inference-header-content-length"])
            document = orjson.loads(response.content[:size])
            assert len(response.content) == size + document["outputs"][0]["parameters"]["binary_data_size"]
            values = response.content[size:]
        else:
            request = {**id_field, "inputs": [{**ENTRY, "data": pixels.tolist()}], "outputs": outputs}
            document = client.post(INFER, json=request).json()
            values = document["outputs"][0]["data"]
        assert document.get("id") == request_id
        return values

    for request_id in ("one", None, "other", "", "one", 'odd "\u20ac\n', None):
        assert numbers(request_id, PIXELS) == numbers(None, PIXELS) != numbers(request_id, 255 - PIXELS)


def test_a_cached_request_still_has_its_numbers_checked(client: TestClient) -> None:
    for pixels in (PIXELS, 255 - PIXELS):
        nested = client.post(INFER, json={"inputs": [{**ENTRY, "data": pixels.tolist()}]})
        flat = client.post(INFER, json={"id": "7", "inputs": [{**ENTRY, "data": pixels.ravel().tolist()}]})
        assert nested.json()["outputs"] == flat.json()["outputs"]
        assert flat.json()["id"] == "7"
        assert "id" not in nested.json()
    for data in ([True] * 16, [256] * 16, [1.5] * 16, [0] * 15, None):
        invalid = client.post(INFER, json={"inputs": [{**ENTRY, "data": data}]})
        assert invalid.status_code == 422
        assert "/inputs/0/data" in invalid.json()["error"]


@pytest.mark.parametrize("num_spaces", [0, 9000])
def test_one_request_may_mix_json_numbers_and_bytes(num_spaces: int, client: TestClient) -> None:
    """A JSON part of more than `oip_json.MIN_BYTES` is parsed by `oip_json`."""
    series = np.arange(12, dtype=np.float32).reshape(1, 6, 2)
    entry = {"name": "series", "shape": [1, 6, 2], "datatype": "FP32"}
    lengths = {"name": "lengths", "shape": [1], "datatype": "INT64", "parameters": {"binary_data_size": 8}}
    path = "/v2/models/tiny-series/infer"
    head = orjson.dumps({"inputs": [{**entry, "data": series.ravel().tolist()}, lengths]}) + b" " * num_spaces
    headers = {"inference-header-content-length": str(len(head))}
    content = head + np.array([6]).tobytes()
    mixed = client.post(path, content=content, headers=headers)
    all_json = {"inputs": [{**entry, "data": series.tolist()}, {**lengths, "parameters": {}, "data": [6]}]}
    assert mixed.status_code == 200
    assert mixed.json()["outputs"] == client.post(path, json=all_json).json()["outputs"]
    assert client.post(path, content=content + b"x", headers=headers).status_code == 422


def test_a_document_nested_too_deep_to_serialise_is_refused(client: TestClient) -> None:
    deep = b'{"inputs":[],"parameters":{"a":' + b"[" * 500 + b"]" * 500 + b"}}"
    response = client.post(INFER, content=deep, headers={"content-type": "application/json"})
    assert response.status_code == 422
    assert "/parameters/a: not supported here" in response.json()["error"]


@pytest.mark.parametrize("requested", ["one", "all", "by name"])
def test_binary_outputs_have_the_same_numbers_as_json(requested: str, client: TestClient) -> None:
    expected = {entry["name"]: entry["data"] for entry in client.post(INFER, json=GOOD).json()["outputs"]}
    document: dict[str, Any] = {"inputs": [{**ENTRY, "parameters": {"binary_data_size": 16}}]}
    match requested:
        case "one":
            document["outputs"] = [{"name": "probabilities", "parameters": {"binary_data": True}}, {"name": "logits"}]
        case "all":
            document["parameters"] = {"binary_data_output": True}
        case _:
            document["parameters"] = {"binary_data_output": True}
            document["outputs"] = [{"name": "probabilities"}, {"name": "logits", "parameters": {"binary_data": False}}]
    body, headers = binary(document, PIXELS.tobytes())
    response = client.post(INFER, content=body, headers=headers)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/octet-stream"
    end = int(response.headers["inference-header-content-length"])
    head, rest = orjson.loads(response.content[:end]), response.content[end:]
    for output in head["outputs"]:
        numbers = output.get("data")
        if numbers is None:
            size = output["parameters"]["binary_data_size"]
            numbers, rest = np.frombuffer(rest[:size], "<f4"), rest[size:]
        np.testing.assert_array_equal(np.float32(numbers), np.float32(expected[output["name"]]))
    assert rest == b""
    assert ("data" in head["outputs"][0]) is False


def test_only_requested_outputs_are_sent(client: TestClient) -> None:
    outputs = client.post(INFER, json={**GOOD, "outputs": [{"name": "probabilities"}]}).json()["outputs"]
    assert [(output["name"], output["datatype"], output["shape"]) for output in outputs] == [
        ("probabilities", "FP32", [1, 3])
    ]
    assert "id" not in client.post(INFER, json=GOOD).json()


def test_metadata_describes_server_and_model(client: TestClient) -> None:
    server = client.get("/v2").json()
    assert server["name"] == "ekiben"
    assert server["extensions"] == list(EXTENSIONS)
    model = client.get("/v2/models/tiny-series").json()
    version = client.get("/models/tiny-series").json()["version"]
    assert (model["name"], model["versions"], model["platform"]) == ("tiny-series", [version], "onnx_onnxv1")
    assert model["inputs"] == [
        {"name": "series", "datatype": "FP32", "shape": [-1, -1, 2]},
        {"name": "lengths", "datatype": "INT64", "shape": [-1]},
    ]
    assert client.get(f"/v2/models/tiny-series/versions/{version}").json() == model
    ready = {"name": "tiny-series", "ready": True, "live": True}
    assert client.get("/v2/models/tiny-series/ready").json() == ready
    assert client.get(f"/v2/models/tiny-series/versions/{version}/ready").json() == ready


def test_a_version_in_the_path_must_be_the_one_that_serves(client: TestClient) -> None:
    version = client.get("/models/tiny-images").json()["version"]
    assert client.post(f"/v2/models/tiny-images/versions/{version}/infer", json=GOOD).status_code == 200
    response = client.post("/v2/models/tiny-images/versions/2/infer", json=GOOD)
    assert response.status_code == 404
    assert version in response.json()["error"]


def test_version_1_names_the_version_in_use(client: TestClient) -> None:
    version = client.get("/models/tiny-images").json()["version"]
    answer = client.post("/v2/models/tiny-images/versions/1/infer", json=GOOD).json()
    assert answer == client.post(INFER, json=GOOD).json()
    assert answer["model_version"] == version
    for path in ("", "/ready", "/config", "/stats"):
        numbered = client.get(f"/v2/models/tiny-images/versions/1{path}")
        assert (numbered.status_code, numbered.json()) == (200, client.get(f"/v2/models/tiny-images{path}").json())


def test_the_timeout_of_a_request_reaches_the_engine(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The timeout counts from the arrival of the request head, so a slow body does not extend it."""
    deadlines: list[float] = []
    body_starts: list[float] = []
    read_body = AsgiRequest.body

    async def body(request: AsgiRequest, limit: int, reserve: Any) -> bytes:
        body_starts.append(time.monotonic())
        return await read_body(request, limit, reserve)

    async def run(*_: Any, context: RequestContext, **__: Any) -> Any:
        deadlines.append(context.deadline)
        raise EkibenError("timeout", "too late")

    monkeypatch.setattr(AsgiRequest, "body", body)
    monkeypatch.setattr(Runner, "run", run)
    before = time.monotonic()
    for timeout_us, header in ((2_000_000, {}), (9_000_000, {"x-request-timeout-ms": "2000"}), (0, {})):
        response = client.post(INFER, json={**GOOD, "parameters": {"timeout": timeout_us}}, headers=header)
        assert (response.status_code, response.json()["error"]) == (504, "too late")
    for end, body_start, limit_s in zip(deadlines, body_starts, (2, 2, Limits().timeout_s), strict=True):
        assert before + limit_s <= end <= body_start + limit_s


FAILURES: dict[str, tuple[str, str, Any, int, str, str]] = {
    # name: method, path, JSON document, status, code, pointer
    "unknown model": ("POST", "/v2/models/x/infer", GOOD, 404, "unknown-model", ""),
    "unknown model's metadata": ("GET", "/v2/models/x", None, 404, "unknown-model", ""),
    "unknown model's readiness": ("GET", "/v2/models/x/ready", None, 404, "unknown-model", ""),
    "unknown path": ("GET", "/v2/models", None, 404, "unknown-route", ""),
    "unknown action": ("POST", "/v2/models/tiny-images/explain", {}, 404, "unknown-route", ""),
    "wrong method": ("GET", INFER, None, 405, "method-not-allowed", ""),
    "a list": ("POST", INFER, [], 422, "invalid-request", ""),
    "unknown field": ("POST", INFER, {**GOOD, "input": 1}, 422, "invalid-request", "/input"),
    "unknown field with a slash": ("POST", INFER, {**GOOD, "a/b~c": 1}, 422, "invalid-request", "/a~1b~0c"),
    "unknown field of an output": (
        "POST", INFER, {**GOOD, "outputs": [{"name": "logits", "x/y": 1}]}, 422, "invalid-request", "/outputs/0/x~1y",
    ),
    "unknown parameter with a slash": (
        "POST", INFER, {**GOOD, "parameters": {"a/b": 1}}, 422, "invalid-request", "/parameters/a~1b",
    ),
    "an id of a number": ("POST", INFER, {**GOOD, "id": 1}, 422, "invalid-request", "/id"),
    "no inputs": ("POST", INFER, {}, 422, "invalid-request", "/inputs"),
    "parameters": ("POST", INFER, {**GOOD, "parameters": 1}, 422, "invalid-request", "/parameters"),
    "a sequence": (
        "POST", INFER, {**GOOD, "parameters": {"sequence_id": 1}}, 422, "invalid-request", "/parameters/sequence_id",
    ),
    "timeout": ("POST", INFER, {**GOOD, "parameters": {"timeout": -1}}, 422, "invalid-request", "/parameters/timeout"),
    "a flag": (
        "POST", INFER, {**GOOD, "parameters": {"binary_data_output": 1}}, 422, "invalid-request",
        "/parameters/binary_data_output",
    ),
    "outputs": ("POST", INFER, {**GOOD, "outputs": 1}, 422, "invalid-request", "/outputs"),
    "an output": ("POST", INFER, {**GOOD, "outputs": ["logits"]}, 422, "invalid-request", "/outputs/0"),
    "no such output": ("POST", INFER, {**GOOD, "outputs": [{"name": "x"}]}, 422, "invalid-request", "/outputs/0/name"),
    "an output twice": (
        "POST", INFER, {**GOOD, "outputs": [{"name": "logits"}] * 2}, 422, "invalid-request", "/outputs/1/name",
    ),
    "classes of an output": (
        "POST", INFER, {**GOOD, "outputs": [{"name": "logits", "parameters": {"classification": "3"}}]}, 422,
        "invalid-request", "/outputs/0/parameters/classification",
    ),
    "too many items": (
        "POST", INFER, {"inputs": as_json({"images": np.zeros((9, 4, 4), np.uint8)})}, 422, "invalid-request",
        "/inputs/0",
    ),
    "true for a pixel": (
        "POST", INFER, {"inputs": [{**ENTRY, "data": [True] * 16}]}, 422, "invalid-request", "/inputs/0/data",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILURES)
def test_every_failure_is_an_error_document_of_the_protocol(name: str, client: TestClient) -> None:
    method, path, document, status, code, pointer = FAILURES[name]
    response = client.request(method, path, **({} if document is None else {"json": document}))
    error = response.json()
    assert (response.status_code, error["code"]) == (status, code), error
    assert response.headers["content-type"] == "application/json"
    assert error["error"] == error["detail"] != ""
    if pointer:
        assert error["errors"][0]["pointer"] == pointer


def test_an_unreadable_body_is_refused(client: TestClient) -> None:
    def status_and_code(content: bytes, **headers: str) -> tuple[int, str]:
        response = client.post(INFER, content=content, headers={k.replace("_", "-"): v for k, v in headers.items()})
        return response.status_code, response.json()["code"]

    assert status_and_code(b"{") == (400, "malformed-json")
    assert status_and_code(b"") == (400, "malformed-json")
    assert status_and_code(b"{}", content_type="image/png") == (415, "unsupported-media-type")
    assert status_and_code(b"{}", content_encoding="br") == (415, "unsupported-media-type")
    assert status_and_code(b"{}", content_encoding="gzip") == (400, "malformed-message")
    for length in ("3", "-1", "x", "9" * 40, "9" * 5000, "0" * 12 + "3"):
        assert status_and_code(b"{}", inference_header_content_length=length) == (422, "invalid-request")
    assert status_and_code(b"{}" + bytes(9), inference_header_content_length="2") == (422, "invalid-request")
    assert status_and_code(b"[]", inference_header_content_length="0" * 5000 + "1") == (400, "malformed-json")
    assert status_and_code(bytes(70000)) == (413, "body-too-large")


def response(manifest: Manifest, parsed: Any, outputs: dict[str, Any]) -> Response:
    return oip._response(manifest, parsed, None, outputs)


@pytest.mark.parametrize("as_bytes", [False, True])
def test_logits_of_minus_infinity_are_bytes_and_never_null(as_bytes: bool) -> None:
    letters = manifest("language-model")
    logits = np.array([[[0.5, -np.inf]]], np.float32)
    parsed = ParsedRequest(0, {"logits": as_bytes}, ("logits",), (), (), {}, moves_batch_axis=False, has_texts=False)
    if as_bytes:
        assert response(letters, parsed, {"logits": logits}).body.endswith(logits.tobytes())
        return
    with pytest.raises(EkibenError, match="JSON cannot hold: request it with `binary_data`") as caught:
        response(letters, parsed, {"logits": logits})
    assert (caught.value.slug, caught.value.faults[0].pointer) == ("invalid-request", "/outputs")


@pytest.mark.parametrize("action", ["infer", "generate", "generate_stream"])
def test_the_context_of_a_request_knows_its_model(
    action: str, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    contexts: list[RequestContext] = []
    new_context = Runner.new_context

    def record(*args: Any, **kwargs: Any) -> RequestContext:
        contexts.append(new_context(*args, **kwargs))
        return contexts[-1]

    monkeypatch.setattr(Runner, "new_context", record)
    assert client.post(f"/v2/models/tiny-images/{action}", json={}).status_code == 422
    assert client.post(f"/v2/models/none/{action}", json={}).status_code == 404
    assert [context.model for context in contexts] == ["tiny-images", ""]
