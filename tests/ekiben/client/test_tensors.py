"""Tensors keep dtype, shape and every bit."""

import json
from typing import Any

import numpy as np
import pytest

from ekiben.client.tensors import DATATYPES, read_response, write_request


def sent(value: Any) -> tuple[dict[str, Any], bytes]:
    body, headers = write_request({"x": value}, None)
    length = int(headers["inference-header-content-length"])
    return json.loads(body[:length])["inputs"][0], body[length:]


def echoed(value: Any) -> Any:
    """Return the tensor as a service would send it back."""
    entry, content = sent(value)
    head = json.dumps({"model_name": "m", "model_version": "1", "outputs": [entry]}).encode()
    return read_response(head + content, len(head)).outputs["x"]


@pytest.mark.parametrize("name", DATATYPES)
def test_every_dtype(name: str) -> None:
    value = np.random.default_rng(0).integers(0, 2 if name == "bool" else 100, (2, 3, 4)).astype(name)
    entry, content = sent(value)
    assert entry == {
        "name": "x",
        "datatype": DATATYPES[name],
        "shape": [2, 3, 4],
        "parameters": {"binary_data_size": value.nbytes},
    }
    assert content == value.tobytes()
    found = echoed(value)
    assert found.dtype == value.dtype
    assert np.array_equal(found, value)


@pytest.mark.parametrize(
    "value", [np.arange(6.0).reshape(2, 3).T, np.arange(4, dtype=">i4"), np.array(7, np.float32), np.zeros((0, 3))]
)
def test_order_in_memory_and_empty_shapes(value: Any) -> None:
    found = echoed(value)
    assert found.shape == value.shape
    assert np.array_equal(found, value)


def test_texts() -> None:
    for value in (np.array([["a", "bücher"], ["", "x\0y"]], object), np.array(["a", "bc"]), np.array([b"\xff", b"a"])):
        expected = [each.encode() if isinstance(each, str) else each for each in value.reshape(-1).tolist()]
        assert echoed(value).shape == value.shape
        assert echoed(value).reshape(-1).tolist() == expected


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([1, 2], "expected a numpy array, got list"),
        (np.zeros(2, complex), "no datatype for complex128"),
        (np.zeros(2, "M8[s]"), "no datatype for datetime64"),
        (np.array([1, "a"], object), "expected texts or bytes, got int"),
    ],
)
def test_what_cannot_be_sent_is_refused(value: Any, reason: str) -> None:
    with pytest.raises(TypeError, match=f"input 'x': .*{reason}"):
        write_request({"x": value}, None)


def test_requested_outputs() -> None:
    body, headers = write_request({}, ["logits"])
    document = json.loads(body[: int(headers["inference-header-content-length"])])
    assert document["outputs"] == [{"name": "logits"}]
    assert document["parameters"] == {"binary_data_output": True}


@pytest.mark.parametrize("change", [b"", b"more"])
def test_an_answer_of_another_length_is_refused(change: bytes) -> None:
    entry, content = sent(np.arange(3.0))
    head = json.dumps({"model_name": "m", "outputs": [entry]}).encode()
    with pytest.raises(ValueError, match=r"output 'x' has 23 bytes instead of 24|4 bytes follow the outputs"):
        read_response(head + (content + change if change else content[:-1]), len(head))
