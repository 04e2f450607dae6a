"""Models of any tensors over the Open Inference Protocol: every dtype, and the batch axis where the model has it."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from service.http.wire.oip_tensors import DATATYPES, pack_texts
from tests.service.hosts import GRANIAN, running_server
from tests.service.tensor_bundles import DTYPES, VALUES, write_echo, write_second_axis, write_without_batch


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    root, folder = tmp_path_factory.mktemp("tensors"), tmp_path_factory.mktemp("server")
    for dtype in DTYPES:
        write_echo(root, dtype)
    write_second_axis(root)
    write_without_batch(root)
    with (
        running_server(GRANIAN, root, folder) as host,
        httpx.Client(base_url=f"http://127.0.0.1:{host.port}", timeout=60) as client,
    ):
        states = {model["name"]: model["reason"] or model["state"] for model in client.get("/models").json()["models"]}
        assert set(states.values()) == {"READY"}, states
        yield client


def infer(client: httpx.Client, model: str, *inputs: dict[str, Any]) -> httpx.Response:
    return client.post(f"/v2/models/{model}/infer", json={"inputs": list(inputs)})


def entry(name: str, datatype: str, value: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(np.shape(value)), "data": value}


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_comes_back_exactly_as_json(client: httpx.Client, dtype: Any) -> None:
    rows = [VALUES[dtype], VALUES[dtype][::-1]]
    response = infer(client, f"echo-{dtype}", entry("x", DATATYPES[dtype], rows))
    assert response.status_code == 200, response.text
    [output] = response.json()["outputs"]
    assert (output["datatype"], output["shape"]) == (DATATYPES[dtype], [2, 3])
    exact = np.dtype(dtype if dtype != "string" else object)
    assert np.array(output["data"], exact).tolist() == np.array(rows, exact).ravel().tolist()


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_comes_back_exactly_as_bytes(client: httpx.Client, dtype: Any) -> None:
    value = np.array([VALUES[dtype]], object if dtype == "string" else dtype)
    content = pack_texts(value) if dtype == "string" else value.tobytes()
    tensor = {
        "name": "x", "datatype": DATATYPES[dtype], "shape": [1, 3], "parameters": {"binary_data_size": len(content)}
    }  # fmt: skip
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    headers = {"inference-header-content-length": str(len(head)), "content-type": "application/octet-stream"}
    for _ in range(2):  # the second time the head is cached
        response = client.post(f"/v2/models/echo-{dtype}/infer", content=head + content, headers=headers)
        assert response.status_code == 200, response.text
        size = int(response.headers["inference-header-content-length"])
        [output] = json.loads(response.content[:size])["outputs"]
        assert output["parameters"] == {"binary_data_size": len(content)}
        assert response.content[size:] == content


@pytest.mark.parametrize(
    ("dtype", "value", "detail"),
    [
        ("bool", 1, "expected true or false, got 1 (entry 1)"),
        ("uint8", 256, "expected a whole number of 0 to 255"),
        ("int8", -129, "expected a whole number of -128 to 127"),
        ("uint64", -1, "expected a whole number of 0 to 18446744073709551615"),
        ("int32", 1.5, "expected a whole number"),
        ("float16", 1e6, "expected finite numbers, got inf at [0, 1]"),
        ("float64", "1", "expected a number"),
        ("string", 7, "expected a text, got 7 (entry 1)"),
        ("string", "\ud800", "half a surrogate pair"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_its_place(
    client: httpx.Client, dtype: Any, value: Any, detail: str
) -> None:
    row = [VALUES[dtype][1], value, VALUES[dtype][1]]
    content = json.dumps({"inputs": [entry("x", DATATYPES[dtype], [row])]})
    response = client.post(f"/v2/models/echo-{dtype}/infer", content=content)
    assert response.status_code in {400, 422}, response.text
    assert detail in response.json()["error"] or "surrogate" in response.json()["error"] + detail
    assert "/inputs/0" in response.json()["error"] or dtype == "string"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x05\0\0\0abc", "text 0 ends after byte 9, the tensor has 7 bytes"),
        (b"\x01\0\0\0\xff", "text 0 is not UTF-8"),
        (b"\x01\0\0\0a", "expected 3 texts for shape [1, 3], got 1"),
    ],
)
def test_broken_texts_are_refused(client: httpx.Client, content: bytes, message: str) -> None:
    tensor = {"name": "x", "datatype": "BYTES", "shape": [1, 3], "parameters": {"binary_data_size": len(content)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    headers = {"inference-header-content-length": str(len(head)), "content-type": "application/octet-stream"}
    response = client.post("/v2/models/echo-string/infer", content=head + content, headers=headers)
    assert response.status_code == 422
    assert message in response.json()["error"]


@pytest.mark.parametrize(("times", "batch"), [(1, 1), (2, 3), (5, 4), (3, 1)])
def test_the_batch_axis_may_be_second(client: httpx.Client, times: int, batch: int) -> None:
    x = np.arange(times * batch * 2, dtype=np.float32).reshape(times, batch, 2)
    add = np.arange(batch)
    inputs = entry("x", "FP32", x.tolist()), entry("add", "INT64", add.tolist())
    [output] = infer(client, "second-axis", *inputs).json()["outputs"]
    assert output["shape"] == [2, batch]
    assert output["data"] == (x.sum(0) + add[:, None]).T.ravel().tolist()


def test_limits_hold_for_axes_wherever_they_are(client: httpx.Client) -> None:
    for times, batch, message in ((6, 1, "expected a times axis of 1 to 5"), (1, 5, "expected a batch axis of 1 to 4")):
        inputs = entry("x", "FP32", np.zeros((times, batch, 2)).tolist()), entry("add", "INT64", [0] * batch)
        response = infer(client, "second-axis", *inputs)
        assert response.status_code == 422
        assert message in response.json()["error"]


def test_a_model_without_a_batch_axis_answers_one_item(client: httpx.Client) -> None:
    for rows in (1, 2, 6):
        x = np.random.default_rng(rows).normal(size=(rows, 2)).astype(np.float32)
        response = infer(client, "no-batch", entry("x", "FP32", x.tolist()))
        assert response.status_code == 200, response.text
        largest, at = response.json()["outputs"]
        assert (largest["shape"], at["shape"]) == ([2], [2])
        assert np.array_equal(np.array(largest["data"], np.float32), x.max(0))
        assert at["data"] == x.argmax(0).tolist()


def test_metadata_has_the_axes_of_the_model(client: httpx.Client) -> None:
    document = client.get("/v2/models/second-axis").json()
    assert [tensor["shape"] for tensor in document["inputs"]] == [[-1, -1, 2], [-1]]
    assert client.get("/v2/models/echo-string").json()["inputs"][0]["datatype"] == "BYTES"
