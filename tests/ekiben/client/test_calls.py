"""Calls are written as the service documents them; an answer that it would not send is an error."""

import json

import httpx
import numpy as np
import pytest

from ekiben.client import calls
from ekiben.client.attempts import HttpAnswer
from ekiben.client.errors import EkibenClientError


def reply(body: bytes) -> HttpAnswer:
    return HttpAnswer(status=200, headers=httpx.Headers(), body=body)


def test_prediction() -> None:
    call = calls.prediction("/predict", "m", {"images": (b"\x89PNG", [[0]]), "top_k": 2})
    assert (call.method, call.path) == ("POST", "/predict")
    assert json.loads(call.body) == {"model": "m", "images": ["iVBORw==", [[0]]], "top_k": 2}
    answer = calls.parsed(call, reply(b'{"model": "m", "version": "v", "predictions": [1], "more": 2}'))
    assert (answer.model, answer.version, answer.predictions) == ("m", "v", [1])


def test_names_are_quoted() -> None:
    assert calls.model("a/b").path == "/models/a%2Fb"
    assert calls.inference("m", {"x": np.zeros(1)}, None, "v").path == "/v2/models/m/versions/v/infer"
    assert calls.inference("m", {"x": np.zeros(1)}, None, None).path == "/v2/models/m/infer"


def test_prompts() -> None:
    assert json.loads(calls.text("m", "a", {"seed": 1}).body) == {"model": "m", "prompt": "a", "seed": 1}
    assert json.loads(calls.text("m", ("a", "b"), {}).body)["prompt"] == ["a", "b"]


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"model": 1}'])
def test_an_answer_that_cannot_be_read_is_an_error(body: bytes) -> None:
    inference = calls.inference("m", {"x": np.zeros(1)}, None, None)
    for call in (
        calls.prediction("/predict", "m", {}),
        calls.text("m", "a", {}),
        calls.pictures("m", {}),
        calls.models(),
        inference,
    ):
        with pytest.raises(EkibenClientError, match="cannot be read"):
            calls.parsed(call, reply(body))
