"""The Open Inference Protocol over the real application, byte by byte; tests/clients has its official client."""

import time
from typing import Any

import numpy as np
import orjson
import pytest
from starlette.testclient import TestClient

from service.engine.deadline import deadline
from service.engine.limits import Limits
from service.engine.runner import Runner
from service.errors import EkibenError
from service.http.routes import oip
from service.http.wire.asgi import AsgiRequest
from tests.service.bundles import FAMILIES, NAMES, example_inputs, golden_cases

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
def test_json_tensors_are_answered_as_the_graph_does(family: str, client: TestClient) -> None:
    case = golden_cases(family)[1]
    answer = client.post(f"/v2/models/{NAMES[family]}/infer", json={"id": "7", "inputs": as_json(dict(case.inputs))})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    document = answer.json()
    version = client.get(f"/models/{NAMES[family]}").json()["version"]
    assert (document["model_name"], document["model_version"], document["id"]) == (NAMES[family], version, "7")
    assert [output["name"] for output in document["outputs"]] == list(case.outputs)
    for output in document["outputs"]:
        expected = case.outputs[output["name"]]
        assert output["shape"] == list(expected.shape)
        assert output["datatype"] == DATATYPES[expected.dtype.name]
        got = np.array(output["data"], expected.dtype).reshape(expected.shape)
        if family == "series-tagger" and output["name"] in {"logits", "probabilities"}:
            beyond = np.arange(expected.shape[1]) >= case.inputs["lengths"][:, None]
            assert not got[beyond].any()
            expected = np.where(beyond[:, :, None], 0, expected)
        np.testing.assert_allclose(got.astype(float), expected.astype(float), atol=1e-6, rtol=1e-5)


def binary(document: dict[str, Any], *tensors: bytes) -> tuple[bytes, dict[str, str]]:
    head = orjson.dumps(document)
    return head + b"".join(tensors), {"inference-header-content-length": str(len(head))}


def test_requests_with_the_same_json_are_answered_by_their_own_bytes(client: TestClient) -> None:
    document = {"inputs": [{**ENTRY, "parameters": {"binary_data_size": 16}}], "outputs": [{"name": "probabilities"}]}
    answers = []
    for pixels in (PIXELS, 255 - PIXELS, PIXELS):
        body, headers = binary(document, pixels.tobytes())
        answers.append(client.post(INFER, content=body, headers=headers).json()["outputs"])
        asked = {"inputs": [{**ENTRY, "data": pixels.tolist()}], "outputs": document["outputs"]}
        assert client.post(INFER, json=asked).json()["outputs"] == answers[-1]
    assert answers[0] == answers[2] != answers[1]
    body, headers = binary(document, PIXELS.tobytes()[:-1])
    assert client.post(INFER, content=body, headers=headers).status_code == 422


@pytest.mark.parametrize("as_bytes", [False, True])
def test_a_request_that_differs_in_its_id_is_understood_once(
    as_bytes: bool, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = [{"name": "logits", "parameters": {"binary_data": as_bytes}}]
    read, understood = oip._read, []
    monkeypatch.setattr(oip, "_kept", {})
    monkeypatch.setattr(oip, "_read", lambda *args: understood.append(args) or read(*args))

    def answer(request_id: str | None, pixels: Any) -> Any:
        named = {} if request_id is None else {"id": request_id}
        if as_bytes:
            body, headers = binary(
                {**named, "inputs": [{**ENTRY, "parameters": {"binary_data_size": 16}}], "outputs": outputs},
                pixels.tobytes(),
            )
            reply = client.post(INFER, content=body, headers=headers)
            size = int(reply.headers["inference-header-content-length"])
            found = orjson.loads(reply.content[:size])
            assert len(reply.content) == size + found["outputs"][0]["parameters"]["binary_data_size"]
            numbers = reply.content[size:]
        else:
            asked = {**named, "inputs": [{**ENTRY, "data": pixels.tolist()}], "outputs": outputs}
            found = client.post(INFER, json=asked).json()
            numbers = found["outputs"][0]["data"]
        assert found.get("id") == request_id
        return numbers

    for request_id in ("one", None, "other", "", "one", 'odd "\u20ac\n', None):
        assert answer(request_id, PIXELS) == answer(None, PIXELS) != answer(request_id, 255 - PIXELS)
    assert len(understood) == 1


def test_what_is_understood_once_is_so_for_other_numbers_only(client: TestClient) -> None:
    """The same frame with other numbers is another question, and each mistake in it is still found."""
    for pixels in (PIXELS, 255 - PIXELS):
        one = client.post(INFER, json={"inputs": [{**ENTRY, "data": pixels.tolist()}]})
        other = client.post(INFER, json={"id": "7", "inputs": [{**ENTRY, "data": pixels.ravel().tolist()}]})
        assert one.json()["outputs"] == other.json()["outputs"]
        assert other.json()["id"] == "7"
        assert "id" not in one.json()
    for data in ([True] * 16, [256] * 16, [1.5] * 16, [0] * 15, None):
        wrong = client.post(INFER, json={"inputs": [{**ENTRY, "data": data}]})
        assert wrong.status_code == 422
        assert "/inputs/0/data" in wrong.json()["error"]


@pytest.mark.parametrize("blanks", [0, 9000])
def test_numbers_in_json_and_bytes_behind_it_may_be_mixed(blanks: int, client: TestClient) -> None:
    """However long the JSON is: a long one is read in another way."""
    series = np.arange(12, dtype=np.float32).reshape(1, 6, 2)
    entry = {"name": "series", "shape": [1, 6, 2], "datatype": "FP32"}
    lengths = {"name": "lengths", "shape": [1], "datatype": "INT64", "parameters": {"binary_data_size": 8}}
    path = "/v2/models/tiny-series/infer"
    head = orjson.dumps({"inputs": [{**entry, "data": series.ravel().tolist()}, lengths]}) + b" " * blanks
    headers = {"inference-header-content-length": str(len(head))}
    content = head + np.array([6]).tobytes()
    mixed = client.post(path, content=content, headers=headers)
    plain = {"inputs": [{**entry, "data": series.tolist()}, {**lengths, "parameters": {}, "data": [6]}]}
    assert mixed.status_code == 200
    assert mixed.json()["outputs"] == client.post(path, json=plain).json()["outputs"]
    assert client.post(path, content=content + b"x", headers=headers).status_code == 422


def test_what_is_nested_deeper_than_can_be_written_is_refused(client: TestClient) -> None:
    deep = b'{"inputs":[],"parameters":{"a":' + b"[" * 500 + b"]" * 500 + b"}}"
    answer = client.post(INFER, content=deep, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert "/parameters/a: not supported here" in answer.json()["error"]


@pytest.mark.parametrize("ask", ["one", "all", "by name"])
def test_bytes_are_answered_with_the_numbers_that_json_has(ask: str, client: TestClient) -> None:
    expected = {entry["name"]: entry["data"] for entry in client.post(INFER, json=GOOD).json()["outputs"]}
    document: dict[str, Any] = {"inputs": [{**ENTRY, "parameters": {"binary_data_size": 16}}]}
    match ask:
        case "one":
            document["outputs"] = [{"name": "probabilities", "parameters": {"binary_data": True}}, {"name": "logits"}]
        case "all":
            document["parameters"] = {"binary_data_output": True}
        case _:
            document["parameters"] = {"binary_data_output": True}
            document["outputs"] = [{"name": "probabilities"}, {"name": "logits", "parameters": {"binary_data": False}}]
    body, headers = binary(document, PIXELS.tobytes())
    answer = client.post(INFER, content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/octet-stream"
    end = int(answer.headers["inference-header-content-length"])
    found, rest = orjson.loads(answer.content[:end]), answer.content[end:]
    for output in found["outputs"]:
        numbers = output.get("data")
        if numbers is None:
            size = output["parameters"]["binary_data_size"]
            numbers, rest = np.frombuffer(rest[:size], "<f4"), rest[size:]
        np.testing.assert_array_equal(np.float32(numbers), np.float32(expected[output["name"]]))
    assert rest == b""
    assert ("data" in found["outputs"][0]) is False


def test_outputs_are_answered_as_they_are_asked_for(client: TestClient) -> None:
    outputs = client.post(INFER, json={**GOOD, "outputs": [{"name": "probabilities"}]}).json()["outputs"]
    assert [output["name"] for output in outputs] == ["probabilities"]
    assert "id" not in client.post(INFER, json=GOOD).json()


def test_metadata_says_what_the_model_takes(client: TestClient) -> None:
    server = client.get("/v2").json()
    assert server["name"] == "ekiben"
    assert server["extensions"] == ["binary_tensor_data"]
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


def test_a_version_is_only_itself(client: TestClient) -> None:
    version = client.get("/models/tiny-images").json()["version"]
    assert client.post(f"/v2/models/tiny-images/versions/{version}/infer", json=GOOD).status_code == 200
    other = client.post("/v2/models/tiny-images/versions/1/infer", json=GOOD)
    assert other.status_code == 404
    assert version in other.json()["error"]


def test_the_timeout_of_a_request_reaches_the_engine(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts from when the request came: a body that takes its time does not make it longer."""
    seen: list[float] = []
    came: list[float] = []
    read = AsgiRequest.body

    async def body(request: AsgiRequest, limit: int) -> bytes:
        came.append(time.monotonic())
        return await read(request, limit)

    async def run(*_: Any, came: float, **__: Any) -> Any:
        seen.append(deadline() or came + Limits().timeout_s)
        raise EkibenError("timeout", "too late")

    monkeypatch.setattr(AsgiRequest, "body", body)
    monkeypatch.setattr(Runner, "run", run)
    before = time.monotonic()
    for timeout_us, header in ((2_000_000, {}), (9_000_000, {"x-request-timeout-ms": "2000"}), (0, {})):
        answer = client.post(INFER, json={**GOOD, "parameters": {"timeout": timeout_us}}, headers=header)
        assert (answer.status_code, answer.json()["error"]) == (504, "too late")
    for end, at, limit_s in zip(seen, came, (2, 2, Limits().timeout_s), strict=True):
        assert before + limit_s <= end <= at + limit_s


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
        "POST", INFER, {**GOOD, "outputs": [{"name": "logits", "parameters": {"classification": 3}}]}, 422,
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
def test_every_failure_is_an_error_of_the_protocol(name: str, client: TestClient) -> None:
    method, path, document, status, code, pointer = FAILURES[name]
    answer = client.request(method, path, **({} if document is None else {"json": document}))
    error = answer.json()
    assert (answer.status_code, error["code"]) == (status, code), error
    assert answer.headers["content-type"] == "application/json"
    assert error["error"] == error["detail"] != ""
    if pointer:
        assert error["errors"][0]["pointer"] == pointer


def test_a_body_that_cannot_be_read_is_refused(client: TestClient) -> None:
    def refused(content: bytes, **headers: str) -> tuple[int, str]:
        answer = client.post(INFER, content=content, headers={k.replace("_", "-"): v for k, v in headers.items()})
        return answer.status_code, answer.json()["code"]

    assert refused(b"{") == (400, "malformed-json")
    assert refused(b"") == (400, "malformed-json")
    assert refused(b"{}", content_type="image/png") == (415, "unsupported-media-type")
    assert refused(b"{}", content_encoding="gzip") == (415, "unsupported-media-type")
    for length in ("3", "-1", "x", "9" * 40, "9" * 5000, "0" * 12 + "3"):
        assert refused(b"{}", inference_header_content_length=length) == (422, "invalid-request")
    assert refused(b"{}" + bytes(9), inference_header_content_length="2") == (422, "invalid-request")
    assert refused(b"[]", inference_header_content_length="0" * 5000 + "1") == (400, "malformed-json")
    assert refused(bytes(70000)) == (413, "body-too-large")
