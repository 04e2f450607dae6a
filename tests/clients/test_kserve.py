"""KServe's clients with its own InferRequest, and the bodies that it writes, against a real server."""

import json
from typing import Any

import httpx
import numpy as np
import pytest

from tests.clients.conftest import run_client
from tests.service.bundles import example_inputs

PIXELS = example_inputs("image-classifier", batch=2)["images"]
SCRIPT = """
import asyncio, json, sys
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

kind, address, pixels = sys.argv[1], sys.argv[2], np.array(json.loads(sys.argv[3]), np.uint8)

def request(binary):
    tensor = InferInput("images", list(pixels.shape), "UINT8")
    tensor.set_data_from_numpy(pixels, binary_data=binary)
    return InferRequest(model_name="tiny-images", infer_inputs=[tensor], request_id="7",
                        request_outputs=[RequestedOutput("probabilities", {"binary_data": binary})])

def plain():
    tensor = InferInput("images", list(pixels.shape), "UINT8", data=pixels)
    return InferRequest(model_name="tiny-images", infer_inputs=[tensor])

async def rest():
    client = InferenceRESTClient(RESTConfig(protocol="v2", timeout=30))
    url = f"http://{address}"
    ready = [await client.is_server_live(url), await client.is_server_ready(url)]
    ready.append(await client.is_model_ready(url, "tiny-images"))
    requests = request(False), request(True), plain()
    return ready, [await client.infer(url, made, model_name="tiny-images") for made in requests]

async def grpc():
    client = InferenceGRPCClient(address)
    ready = [await client.is_server_live(), await client.is_server_ready(), await client.is_model_ready("tiny-images")]
    tensor = InferInput("images", list(pixels.shape), "UINT8", data=pixels.ravel().tolist())
    typed = InferRequest(model_name="tiny-images", infer_inputs=[tensor])
    return ready, [await client.infer(made) for made in (request(True), typed)]

ready, answers = asyncio.run(rest() if kind == "rest" else grpc())
outputs = [next(o for o in answer.outputs if o.name == "probabilities") for answer in answers]
print(json.dumps({"ready": ready, "answers": [np.asarray(o.as_numpy(), np.float32).tolist() for o in outputs]}))
"""
# What InferRequest.to_rest() writes: with `data` given, and after set_data_from_numpy(binary_data=False).
TENSOR = {"name": "images", "shape": [2, 4, 4], "datatype": "UINT8", "data": PIXELS.ravel().tolist()}
RECORDED: list[dict[str, Any]] = [
    {"id": "6bca81bb-13df-4107-b1dc-887898ec3d0f", "model_name": "tiny-images", "inputs": [TENSOR]},
    {
        "id": "x",
        "model_name": "tiny-images",
        "inputs": [TENSOR],
        "outputs": [{"name": "probabilities", "parameters": {"binary_data": False}}],
    },
]


def native(address: str) -> list[float]:
    """The probability of the first label of each image."""
    body = {"model": "tiny-images", "images": PIXELS.tolist()}
    answer = httpx.post(f"http://{address}/classify", json=body, timeout=30).json()
    return [prediction["probability"] for prediction in answer["predictions"]]


def check(rows: Any, address: str) -> None:
    expected = np.float32(native(address))
    assert np.float32(rows).max(axis=1).tolist() == expected.tolist()


def test_the_rest_client_gets_the_answers_of_the_native_route(address: str) -> None:
    answer = run_client(".venv-kserve", SCRIPT, "rest", address, json.dumps(PIXELS.tolist()))
    assert answer["ready"] == [True, True, True]
    for rows in answer["answers"]:
        check(rows, address)


def test_the_grpc_client_gets_the_answers_of_the_native_route(grpc_ports: tuple[str, str]) -> None:
    http, grpc = grpc_ports
    answer = run_client(".venv-kserve", SCRIPT, "grpc", grpc, json.dumps(PIXELS.tolist()))
    assert answer["ready"] == [True, True, True]
    for rows in answer["answers"]:
        check(rows, http)


@pytest.mark.parametrize("body", RECORDED, ids=["data", "from numpy"])
def test_recorded_bodies_are_answered(body: Any, address: str) -> None:
    response = httpx.post(f"http://{address}/v2/models/tiny-images/infer", json=body, timeout=30)
    assert response.status_code == 200, response.text
    assert (response.json()["id"], response.json()["model_name"]) == (body["id"], "tiny-images")
    [output] = [output for output in response.json()["outputs"] if output["name"] == "probabilities"]
    check(np.reshape(output["data"], output["shape"]), address)
