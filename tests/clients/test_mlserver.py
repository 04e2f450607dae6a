"""MLServer's codecs and types, and the bodies that they write, against a real server."""

import json
from typing import Any

import httpx
import numpy as np
import pytest

from tests.clients.conftest import run_client
from tests.service.bundles import example_inputs

PIXELS = example_inputs("image-classifier", batch=2)["images"]
TEXTS = ["the train", "a"]
SCRIPT = """
import json, sys, urllib.request
import numpy as np
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import (InferenceRequest, InferenceResponse, MetadataModelResponse, MetadataServerResponse,
                            Parameters, RepositoryIndexRequest, RepositoryIndexResponse, RequestOutput)

base = f"http://{sys.argv[1]}/v2"
pixels, texts = np.array(json.loads(sys.argv[2]), np.uint8), json.loads(sys.argv[3])

def ask(path, body=None):
    request = urllib.request.Request(base + path, body and body.encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        return response.read()

def infer(model, request, **written):
    answer = InferenceResponse.model_validate_json(ask(f"/models/{model}/infer", request.model_dump_json(**written)))
    outputs = {output.name: NumpyCodec.decode_output(output) for output in answer.outputs}
    return outputs["probabilities"].tolist()

np_type = Parameters(content_type="np")
images = InferenceRequest(id="q", parameters=Parameters(content_type="np", headers={"a": "b"}),
                          inputs=[NumpyCodec.encode_input("images", pixels)],
                          outputs=[RequestOutput(name="probabilities", parameters=np_type)])
ids = NumpyCodec.encode_input("ids", np.array([[1, 2], [1, 1]]))
lengths = NumpyCodec.encode_input("lengths", np.array([2, 1]))
as_texts = [StringCodec.encode_input("texts", texts, use_bytes=use_bytes) for use_bytes in (True, False)]
MetadataServerResponse.model_validate_json(ask(""))
MetadataModelResponse.model_validate_json(ask("/models/tiny-texts"))
index = RepositoryIndexResponse.model_validate_json(
    ask("/repository/index", RepositoryIndexRequest(ready=True).model_dump_json()))
print(json.dumps({
    "images": [infer("tiny-images", images), infer("tiny-images", images, exclude_none=True)],
    "texts": [infer("tiny-texts", InferenceRequest(inputs=[tensor])) for tensor in as_texts],
    "ids": infer("tiny-texts", InferenceRequest(inputs=[ids, lengths])),
    "index": sorted(entry.name for entry in index.root),
}))
"""
NP = {"content_type": "np"}
# What the codecs and InferenceRequest write: every optional field of a request, and a list as [items, 1].
RECORDED: dict[str, tuple[str, dict[str, Any]]] = {
    "images": (
        "tiny-images",
        {
            "id": "q",
            "parameters": {**NP, "headers": {"a": "b"}},
            "inputs": [
                {
                    "name": "images",
                    "shape": [2, 4, 4],
                    "datatype": "UINT8",
                    "parameters": NP,
                    "data": PIXELS.ravel().tolist(),
                }
            ],
            "outputs": [{"name": "probabilities", "parameters": NP}],
        },
    ),
    "texts": (
        "tiny-texts",
        {
            "inputs": [
                {
                    "name": "texts",
                    "shape": [2, 1],
                    "datatype": "BYTES",
                    "parameters": {"content_type": "str"},
                    "data": TEXTS,
                }
            ]
        },
    ),
    "lists": (
        "tiny-texts",
        {
            "inputs": [
                {"name": "ids", "shape": [2, 2], "datatype": "INT64", "parameters": NP, "data": [1, 2, 1, 1]},
                {"name": "lengths", "shape": [2, 1], "datatype": "INT64", "parameters": NP, "data": [2, 1]},
            ]
        },
    ),
}


def native(address: str, route: str, body: dict[str, Any]) -> list[float]:
    answer = httpx.post(f"http://{address}{route}", json=body, timeout=30).json()
    return [float(np.float32(prediction["probability"])) for prediction in answer["predictions"]]


def best(rows: Any) -> list[float]:
    return [float(value) for value in np.float32(rows).max(axis=1)]


def test_codecs_give_the_answers_of_the_native_routes(address: str) -> None:
    answer = run_client(".venv-mlserver", SCRIPT, address, json.dumps(PIXELS.tolist()), json.dumps(TEXTS))
    images = native(address, "/classify", {"model": "tiny-images", "images": PIXELS.tolist()})
    texts = native(address, "/sequence-predict", {"model": "tiny-texts", "texts": TEXTS})
    assert [best(rows) for rows in answer["images"]] == [images, images]
    assert [best(rows) for rows in answer["texts"]] == [texts, texts]
    assert len(answer["ids"]) == 2
    assert {"tiny-images", "tiny-texts"} <= set(answer["index"])


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_bodies_are_answered(name: str, address: str) -> None:
    model, body = RECORDED[name]
    response = httpx.post(f"http://{address}/v2/models/{model}/infer", json=body, timeout=30)
    assert response.status_code == 200, response.text
    [output] = [output for output in response.json()["outputs"] if output["name"] == "probabilities"]
    rows = best(np.reshape(output["data"], output["shape"]))
    match name:
        case "images":
            assert rows == native(address, "/classify", {"model": model, "images": PIXELS.tolist()})
        case "texts":
            assert rows == native(address, "/sequence-predict", {"model": model, "texts": TEXTS})
        case _:
            assert len(rows) == 2
