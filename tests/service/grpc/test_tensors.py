"""Requests as documents, whichever way their numbers come."""

from typing import Any

import numpy as np
import pytest

from service.errors import EkibenError
from service.grpc.messages import CLASSES, parse_message
from service.grpc.tensors import CONTENTS, read_answer, read_request, write_response
from service.http.wire.oip_request import parse_document
from service.http.wire.oip_tensors import DATATYPE_OF, build_arrays
from tests.service.tasks.test_tensors import manifest_of

PIXELS = np.arange(16, dtype=np.uint8)


def request(**fields: Any) -> Any:
    return CLASSES["ModelInferRequest"](**fields)


def image(**fields: Any) -> dict[str, Any]:
    return {"name": "images", "datatype": "UINT8", "shape": [1, 4, 4], **fields}


def tensors_of(message: Any) -> dict[str, Any]:
    document, body = read_request(message)
    parsed, _, data = parse_document(document, manifest_of("image-classifier"))
    assert all(parsed.binary_outputs.values())
    return build_arrays(parsed.tensors, data, body, 0)


def test_raw_and_typed_numbers_are_the_same_tensor() -> None:
    raw = tensors_of(request(inputs=[image()], raw_input_contents=[PIXELS.tobytes()]))
    typed = tensors_of(request(inputs=[image(contents={"uint_contents": PIXELS.tolist()})]))
    assert raw["images"].tobytes() == typed["images"].tobytes() == PIXELS.tobytes()
    assert raw["images"].shape == typed["images"].shape == (1, 4, 4)


def test_empty_contents_beside_raw_numbers_are_none() -> None:
    [images] = tensors_of(request(inputs=[image(contents={})], raw_input_contents=[PIXELS.tobytes()])).values()
    assert images.tobytes() == PIXELS.tobytes()


def test_several_raw_tensors_follow_each_other() -> None:
    document, body = read_request(request(inputs=[image(), image(name="b")], raw_input_contents=[b"abc", b"de"]))
    assert [entry["parameters"]["binary_data_size"] for entry in document["inputs"]] == [3, 2]
    assert body == b"abcde"


def test_parameters_and_outputs_are_those_of_the_document() -> None:
    parameters = [{"key": "timeout", "value": {"int64_param": 5}}]
    outputs = [{"name": "logits", "parameters": [{"key": "classification", "value": {"int64_param": 2}}]}]
    document, _ = read_request(request(id="7", parameters=parameters, inputs=[image()], outputs=outputs))
    assert (document["id"], document["parameters"]) == ("7", {"timeout": 5, "binary_data_output": True})
    assert document["outputs"] == [{"name": "logits", "parameters": {"classification": 2}}]
    assert read_request(request())[0] == {"id": None, "parameters": {"binary_data_output": True}, "inputs": []}


@pytest.mark.parametrize(
    ("message", "pointer", "detail"),
    [
        (request(inputs=[image()], raw_input_contents=[b"", b""]), "/raw_input_contents", "of 1 inputs, got 2"),
        (
            request(inputs=[image(contents={"uint_contents": [1]})], raw_input_contents=[b"a"]),
            "/inputs/0/contents", "given twice",
        ),
        (
            request(inputs=[image(), image(contents={"int_contents": [1]})]),
            "/inputs/1/contents/int_contents", "expected uint_contents, where UINT8 has its values",
        ),
        (
            request(inputs=[image(contents={"uint_contents": [1], "fp32_contents": [0.0]})]),
            "/inputs/0/contents/fp32_contents", "expected uint_contents",
        ),
        (request(inputs=[image(datatype="FP16")]), "/inputs/0/datatype", "raw_input_contents"),
        (request(inputs=[image(datatype="x")]), "/inputs/0/datatype", "expected a datatype, got 'x'"),
        (
            request(inputs=[image(datatype="BYTES", contents={"bytes_contents": [b"a", b"\xff"]})]),
            "/inputs/0/contents/bytes_contents", "text 1 is not UTF-8",
        ),
    ],
)  # fmt: skip
def test_a_request_that_cannot_be_read_is_refused(message: Any, pointer: str, detail: str) -> None:
    with pytest.raises(EkibenError, match=detail) as caught:
        read_request(message)
    assert caught.value.faults[0].pointer == pointer


def test_every_datatype_has_a_place_but_fp16() -> None:
    assert set(DATATYPE_OF.values()) - set(CONTENTS) == {"FP16"}


def test_an_answer_has_raw_contents() -> None:
    manifest = manifest_of("image-classifier")
    outputs = {"logits": np.float32([[1, 2, 3]]), "classes": np.array([["a", "€"]], object)}
    message = parse_message("ModelInferResponse", write_response(manifest, outputs, None))
    assert (message.model_name, message.model_version, message.id) == (manifest.name, manifest.version, "")
    assert [(output.name, output.datatype, list(output.shape)) for output in message.outputs] == [
        ("logits", "FP32", [1, 3]), ("classes", "BYTES", [1, 2])
    ]  # fmt: skip
    assert list(message.raw_output_contents) == [
        np.float32([1, 2, 3]).tobytes(), b"\1\0\0\0a\3\0\0\0" + "€".encode(),
    ]  # fmt: skip


def test_the_content_of_an_answer_has_its_numbers_and_texts() -> None:
    outputs = {"y": np.array([[0.5, -1.5]], np.float32), "texts": np.array(["a", "bc"], object)}
    content = read_answer(write_response(manifest_of("image-classifier"), outputs, "7"))
    numbers, texts = content["outputs"]
    assert (numbers["name"], numbers["datatype"], numbers["shape"]) == ("y", "FP32", [1, 2])
    assert numbers["data"].tolist() == [0.5, -1.5]
    assert texts["data"] == ["a", "bc"]
