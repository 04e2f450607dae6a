"""What the protocol adds to the tensors of a model: texts, classes, and fields of other clients."""

import struct
from typing import Any

import numpy as np
import orjson
import pytest
from starlette.testclient import TestClient

from tests.service.bundles import example_inputs

INFER = "/v2/models/tiny-images/infer"
PIXELS = example_inputs("image-classifier", batch=2)["images"]
IMAGES = {"name": "images", "shape": [2, 4, 4], "datatype": "UINT8", "data": PIXELS.ravel().tolist()}
GOOD: dict[str, Any] = {"inputs": [IMAGES]}
TEXTS = ["the train", "a", "the the train a"]


def outputs(client: TestClient, document: dict[str, Any], path: str = INFER) -> dict[str, Any]:
    response = client.post(path, json=document)
    assert response.status_code == 200, response.text
    return {output["name"]: output for output in response.json()["outputs"]}


UNCHANGED: list[dict[str, Any]] = [
    {"model_name": "tiny-images"},
    {"model_name": None, "model_version": "1", "id": None},
    {"model_version": ""},
    {"parameters": {"priority": 0, "sequence_id": 0, "sequence_start": False, "sequence_end": False}},
    {"parameters": {"content_type": "np", "headers": {"a": "b"}}, "outputs": []},
    {"inputs": [{**IMAGES, "parameters": {"content_type": "np"}}]},
    {"inputs": [{**IMAGES, "parameters": None}], "outputs": None, "parameters": None},
    {"outputs": [{"name": "logits", "parameters": {"content_type": "np"}}, {"name": "probabilities"}]},
]


@pytest.mark.parametrize("fields", UNCHANGED, ids=str)
def test_fields_that_change_nothing_are_accepted(fields: dict[str, Any], client: TestClient) -> None:
    expected = outputs(client, GOOD)
    for _ in range(2):  # the second time the request is cached
        assert outputs(client, {**GOOD, **fields}) == expected


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"model_name": "tiny-texts"}, "/model_name"),
        ({"model_name": ["tiny-images"]}, "/model_name"),
        ({"model_version": "2"}, "/model_version"),
        ({"model_version": 1}, "/model_version"),
        ({"parameters": {"priority": 2}}, "/parameters/priority"),
        ({"inputs": [{**IMAGES, "parameters": {"content_type": "base64"}}]}, "/inputs/0/parameters/content_type"),
        ({"outputs": [{"name": ["logits"]}]}, "/outputs/0/name"),
    ],
)
def test_fields_that_would_change_something_are_refused(fields: Any, pointer: str, client: TestClient) -> None:
    response = client.post(INFER, json={**GOOD, **fields})
    assert (response.status_code, response.json()["errors"][0]["pointer"]) == (422, pointer)


def classes_of(client: TestClient, count: int, name: str = "probabilities") -> Any:
    requested = [{"name": name, "parameters": {"classification": count}}]
    return outputs(client, {**GOOD, "outputs": requested})[name]


def test_classes_are_those_of_the_native_route(client: TestClient) -> None:
    native = client.post("/classify", json={"model": "tiny-images", "images": PIXELS.tolist(), "top_k": 2}).json()
    labels = [
        top["label"]
        for top in client.post(
            "/classify", json={"model": "tiny-images", "images": PIXELS[:1].tolist(), "top_k": 3}
        ).json()["predictions"][0]["top"]
    ]
    assert len(labels) == 3
    output = classes_of(client, 2)
    assert (output["datatype"], output["shape"]) == ("BYTES", [2, 2])
    for row, prediction in zip(np.reshape(output["data"], (2, 2)), native["predictions"], strict=True):
        for text, top in zip(row, prediction["top"], strict=True):
            value, index, label = text.split(":", 2)
            assert (label, np.float32(value)) == (top["label"], np.float32(top["probability"]))
            assert index.isdigit()


def test_more_classes_than_there_are_give_all(client: TestClient) -> None:
    assert classes_of(client, 1000)["shape"] == [2, 3]
    assert outputs(client, GOOD)["logits"] == classes_of(client, 0, "logits")


def test_classes_may_be_bytes_beside_numbers(client: TestClient) -> None:
    document = {
        **GOOD,
        "outputs": [
            {"name": "probabilities", "parameters": {"classification": 1, "binary_data": True}},
            {"name": "logits", "parameters": {"binary_data": True}},
        ],
    }
    response = client.post(INFER, json=document)
    size = int(response.headers["inference-header-content-length"])
    first, second = orjson.loads(response.content[:size])["outputs"]
    assert (first["datatype"], first["shape"], second["datatype"]) == ("BYTES", [2, 1], "FP32")
    rest, texts = response.content[size:], []
    for _ in range(2):
        (length,) = struct.unpack_from("<I", rest)
        texts.append(rest[4 : 4 + length].decode())
        rest = rest[4 + length :]
    assert texts == classes_of(client, 1)["data"]
    assert len(rest) == second["parameters"]["binary_data_size"] == 2 * 3 * 4


@pytest.mark.parametrize("count", [-1, True, "1", 1.0, 1 << 21])
def test_a_number_of_classes_is_checked(count: Any, client: TestClient) -> None:
    response = client.post(
        INFER, json={**GOOD, "outputs": [{"name": "logits", "parameters": {"classification": count}}]}
    )
    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"] == "/outputs/0/parameters/classification"


def test_classes_need_one_list_of_numbers_an_item(client: TestClient) -> None:
    requested = [{"name": "images", "parameters": {"classification": 1}}]
    latents = example_inputs("image-generator", batch=1)["latents"]
    entry = {"name": "latents", "shape": list(latents.shape), "datatype": "FP32", "data": latents.ravel().tolist()}
    response = client.post("/v2/models/tiny-pictures/infer", json={"inputs": [entry], "outputs": requested})
    assert response.status_code == 422
    assert "expected an output of one list of numbers an item, 'images' is uint8" in response.json()["error"]


def text_entry(texts: Any, **fields: Any) -> dict[str, Any]:
    return {"name": "texts", "shape": [len(texts)], "datatype": "BYTES", "data": texts, **fields}


def test_texts_give_the_answer_of_the_native_route(client: TestClient) -> None:
    path = "/v2/models/tiny-texts/infer"
    native = client.post("/sequence-predict", json={"model": "tiny-texts", "texts": TEXTS}).json()["predictions"]
    got = outputs(client, {"inputs": [text_entry(TEXTS)]}, path)
    probabilities = np.float32(got["probabilities"]["data"]).reshape(len(TEXTS), -1)
    assert probabilities.max(axis=1).tolist() == [np.float32(row["probability"]) for row in native]
    as_column = text_entry(TEXTS, shape=[len(TEXTS), 1], parameters={"content_type": "str"})
    assert outputs(client, {"inputs": [as_column]}, path) == got
    content = b"".join(struct.pack("<I", len(text)) + text.encode() for text in TEXTS)
    head = orjson.dumps({"inputs": [text_entry(TEXTS, data=None, parameters={"binary_data_size": len(content)})]})
    for _ in range(2):  # the second time the head is cached
        response = client.post(
            path, content=head + content, headers={"inference-header-content-length": str(len(head))}
        )
        assert {output["name"]: output for output in response.json()["outputs"]} == got
    other = outputs(client, {"inputs": [text_entry(TEXTS[::-1])]}, path)
    assert np.float32(other["probabilities"]["data"]).reshape(len(TEXTS), -1).tolist() == probabilities[::-1].tolist()


@pytest.mark.parametrize(
    ("entries", "pointer", "message"),
    [
        ([text_entry(["a", ""])], "/inputs/0/data/1", "a non-empty text"),
        ([text_entry(["a", 3])], "/inputs/0/data", "expected a text, got 3"),
        ([text_entry([])], "/inputs/0", "items"),
        ([text_entry(["a"] * 300)], "/inputs/0", "items"),
        ([text_entry(["a " * 3000])], "/inputs/0/data/0", "expected at most"),
        ([text_entry(["a"], datatype="INT64")], "/inputs/0/datatype", "expected BYTES"),
        ([text_entry(["a"]), text_entry(["a"])], "/inputs/1/name", "was given already"),
        (
            [text_entry(["a"]), {"name": "lengths", "shape": [1], "datatype": "INT64", "data": [1]}],
            "/inputs/1/name", "expected one of texts",
        ),
    ],
)  # fmt: skip
def test_texts_are_checked(entries: Any, pointer: str, message: str, client: TestClient) -> None:
    response = client.post("/v2/models/tiny-texts/infer", json={"inputs": entries})
    assert response.status_code == 422, response.text
    assert response.json()["errors"][0]["pointer"] == pointer
    assert message in response.json()["error"]


def test_a_language_model_and_other_readers_take_no_texts(client: TestClient) -> None:
    for name in ("tiny-letters", "tiny-images"):
        response = client.post(f"/v2/models/{name}/infer", json={"inputs": [text_entry(["a"])]})
        assert (response.status_code, response.json()["errors"][0]["pointer"]) == (422, "/inputs/0/name")


def test_a_column_is_a_list_of_items(client: TestClient) -> None:
    ids = {"name": "ids", "shape": [2, 3], "datatype": "INT64", "data": [1, 2, 0, 1, 1, 1]}
    lengths = {"name": "lengths", "shape": [2], "datatype": "INT64", "data": [2, 3]}
    path = "/v2/models/tiny-texts/infer"
    expected = outputs(client, {"inputs": [ids, lengths]}, path)
    assert outputs(client, {"inputs": [ids, {**lengths, "shape": [2, 1]}]}, path) == expected
    assert client.post(path, json={"inputs": [ids, {**lengths, "shape": [1, 2]}]}).status_code == 422
