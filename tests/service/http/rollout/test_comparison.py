"""Answers differ in what matters to a client, wherever it stands."""

from typing import Any

import numpy as np
import orjson
import pytest

from service.http.rollout import comparison
from service.http.rollout.comparison import first_difference as difference_of
from service.http.rollout.comparison import read_answer
from service.http.wire.messages import JSON, Response
from service.http.wire.oip_tensors import pack_texts


def first_difference(serving: Response, candidate: Response, tolerance: float) -> str | None:
    return difference_of(read_answer(serving), read_answer(candidate), tolerance)


def answer(**prediction: Any) -> Response:
    content = {"model": "m", "version": "1", "predictions": [{"label": "seven", "probability": 0.9}, prediction]}
    return Response(JSON, orjson.dumps(content))


def binary(*values: np.ndarray, datatypes: tuple[str, ...] = ("FP32", "INT64")) -> Response:
    """An answer whose outputs are sent as bytes."""
    outputs = [
        {"name": f"y{i}", "datatype": datatype, "shape": value.shape, "parameters": {"binary_data_size": value.nbytes}}
        for i, (value, datatype) in enumerate(zip(values, datatypes, strict=False))
    ]
    head = orjson.dumps({"model_name": "m", "model_version": "1", "outputs": outputs})
    content = b"".join([head, *(value.tobytes() for value in values)])
    return Response("application/octet-stream", content, [("inference-header-content-length", str(len(head)))])


SAME = {
    "nothing": ({"label": "one"}, {"label": "one"}),
    "close numbers": ({"probability": 0.91}, {"probability": 0.88}),
    "close large numbers": ({"value": 1000.0}, {"value": 1049.0}),
    "whole numbers among others": ({"value": 1.0}, {"value": 1}),
    "labels below the first": ({"label": "c", "top": [{"label": "a"}]}, {"label": "c", "top": [{"label": "b"}]}),
    "infinity": ({"value": None}, {"value": None}),
}
DIFFERENT = {
    "a label": ({"label": "one"}, {"label": "two"}, "/predictions/1/label is 'one', the candidate says 'two'"),
    "a number": ({"probability": 0.91}, {"probability": 0.8}, "/predictions/1/probability is 0.91, the candidate"),
    "a whole number": ({"tokens": 7}, {"tokens": 8}, "/predictions/1/tokens is 7, the candidate says 8"),
    "a small number": ({"value": 0.0}, {"value": 0.06}, "/predictions/1/value is 0, the candidate says 0.06"),
    "a length": ({"steps": [1, 2]}, {"steps": [1]}, "/predictions/1/steps has 2 and 1 values"),
    "a field": ({"label": "one"}, {}, "/predictions/1/label is in one answer only"),
    "a field more": ({}, {"label": "one"}, "/predictions/1/label is in one answer only"),
    "null": ({"value": None}, {"value": 0.0}, "/predictions/1/value is null, the candidate says 0.0"),
    **{
        f"a value of the name {name}": (
            {"values": {"a": 1.0, name: 1.0}},
            {"values": {"a": 1.0, name: 2.0}},
            f"/{name} is 1",
        )
        for name in ("top", "version", "model_version", "label")
    },
    "an output of the name top": (
        {"outputs": {"label": [1], "top": [[1.0]]}},
        {"outputs": {"label": [1], "top": [[2.0]]}},
        "/predictions/1/outputs/top/0/0 is 1, the candidate says 2",
    ),
    "a truth": ({"value": True}, {"value": False}, "/predictions/1/value"),
}


@pytest.mark.parametrize("name", SAME)
def test_what_clients_do_not_act_on_is_no_difference(name: str) -> None:
    left, right = SAME[name]
    assert first_difference(answer(**left), answer(**right), 0.05) is None


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_difference_is_named(name: str) -> None:
    left, right, expected = DIFFERENT[name]
    assert expected in (first_difference(answer(**left), answer(**right), 0.05) or "")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "uint8", "bool"])
def test_arrays_differ_where_lists_differ(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "CHUNK", 3)
    numbers = np.random.default_rng(5)
    special = np.array([0, 1, 255, 300, np.inf, -np.inf, np.nan] if "float" in dtype else [0, 1, 200])
    for _ in range(200):
        left, right = (numbers.choice(special, size).astype(dtype) for size in numbers.integers(0, 8, 2))
        close = left.copy() if dtype == "bool" else left + np.array(numbers.choice([0, 0, 1]), dtype)
        for other in (right, close):
            expected = difference_of(left.tolist(), other.tolist(), 0.02)
            assert difference_of(left, other, 0.02) == expected


def test_outputs_that_are_sent_as_bytes_are_compared_as_numbers() -> None:
    floats, ids = np.array([[0.1, 0.9]], np.float32), np.array([7], np.int64)
    assert first_difference(binary(floats, ids), binary(floats + 0.01, ids), 0.05) is None
    assert "/outputs/0/data/0 is 0.1" in (first_difference(binary(floats, ids), binary(floats + 0.1, ids), 0.05) or "")
    assert "/outputs/1/data/0 is 7" in (first_difference(binary(floats, ids), binary(floats, ids + 1), 0.05) or "")


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (["a", "b"], ["a", "c"], "/outputs/0/data/1 is 'b', the candidate says 'c'"),
        (["a", "b"], ["a"], "/outputs/0/data has 2 and 1 values"),
        (["é"], [""], "/outputs/0/data/0 is 'é', the candidate says ''"),
    ],
)
def test_texts_that_are_sent_as_bytes_are_compared_as_texts(left: list[str], right: list[str], expected: str) -> None:
    answers = []
    for texts in (left, right):
        content = np.frombuffer(pack_texts(np.array(texts, object)), np.uint8)
        answers.append(binary(content, datatypes=("BYTES",)))
    assert first_difference(answers[0], answers[0], 0.05) is None
    assert first_difference(*answers, 0.05) == expected


def test_long_texts_are_quoted_where_they_differ() -> None:
    left, right = "a" * 100 + "b" + "c" * 100, "a" * 100 + "d" + "c" * 100
    quoted = f"…'{'a' * 20}b{'c' * 19}'… (201 characters)"
    expected = f"/text is {quoted}, the candidate says {quoted.replace('b', 'd')}"
    assert difference_of({"text": left}, {"text": right}, 0) == expected
    assert difference_of({"text": left}, {"text": left[:-1]}, 0) == (
        f"/text is …'{'c' * 40}' (201 characters), the candidate says …'{'c' * 40}' (200 characters)"
    )


def test_not_a_number_differs_and_infinity_equals_itself() -> None:
    logits = np.array([-np.inf, 1.0], np.float32)
    assert first_difference(binary(logits), binary(logits), 0.05) is None
    assert first_difference(binary(logits), binary(np.array([np.nan, 1.0], np.float32)), 0.05) is not None


def test_bytes_and_json_of_one_answer_are_read_apart() -> None:
    values = np.arange(4, dtype=np.float32)
    document = read_answer(binary(values, np.array([1, 2])))
    assert document["outputs"][0]["data"].tolist() == [0, 1, 2, 3]
    assert document["outputs"][1]["data"].tolist() == [1, 2]
