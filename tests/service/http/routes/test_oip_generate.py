"""Triton's generate extension gives the text of POST /generate."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.service.chat_bundle import CYCLE, NAME
from tests.service.event_streams import read_events

PATH = f"/v2/models/{NAME}/generate"
BODY: dict[str, Any] = {"text_input": "a", "parameters": {"temperature": 0, "max_tokens": 13, "seed": 4}}


def test_a_text_is_continued(client: TestClient) -> None:
    version = client.get(f"/v2/models/{NAME}").json()["versions"][0]
    answer = client.post(PATH, json={**BODY, "id": "x-1"}).json()
    assert answer == {"model_name": NAME, "model_version": version, "id": "x-1", "text_output": CYCLE[1:] + "a"}
    versioned = client.post(f"/v2/models/{NAME}/versions/{version}/generate", json=BODY).json()
    assert versioned["text_output"] == answer["text_output"]


def test_the_text_is_that_of_the_native_route(client: TestClient) -> None:
    parameters = {"temperature": 1.3, "seed": 9, "max_tokens": 9, "top_k": 5}
    native = client.post("/generate", json={"model": "tiny-letters", "prompt": "the ", **parameters}).json()
    here = client.post("/v2/models/tiny-letters/generate", json={"text_input": "the ", "parameters": parameters}).json()
    assert here["text_output"] == native["completions"][0]["text"]


def test_details_are_given_when_asked_for(client: TestClient) -> None:
    parameters = {**BODY["parameters"], "details": True, "logprobs": True, "stop": "é"}
    details = client.post(PATH, json={**BODY, "parameters": parameters}).json()["details"]
    assert (details["finish_reason"], details["seed"]) == ("stop", 4)
    assert details["tokens"] == len(details["logprobs"]) == 4, "those of the stop as well"


def test_a_stream_ends_with_its_reason(client: TestClient) -> None:
    response = client.post(f"{PATH}_stream", json=BODY)
    assert response.headers["content-type"] == "text/event-stream"
    events = [event for _, event in read_events(response.text)]
    assert "".join(event["text_output"] for event in events) == CYCLE[1:] + "a"
    assert ["details" in event for event in events] == [False] * (len(events) - 1) + [True]
    assert events[-1]["details"] == {"finish_reason": "length"}


def test_parameters_of_other_clients_that_change_nothing_are_accepted(client: TestClient) -> None:
    body = {**BODY, "parameters": {**BODY["parameters"], "stream": False, "exclude_input_in_output": True}}
    assert client.post(PATH, json=body).json() == client.post(PATH, json=BODY).json()


def test_a_parameter_that_is_null_counts_as_absent(client: TestClient) -> None:
    body = {**BODY, "parameters": {**BODY["parameters"], "stream": None, "details": None, "top_k": None}}
    assert client.post(PATH, json=body).json() == client.post(PATH, json=BODY).json()


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/text_input"),
        ({"text_input": ["a"]}, "/text_input"),
        ({"text_input": ""}, "/text_input"),
        ({"text_input": "a", "id": 1}, "/id"),
        ({"text_input": "a", "prompt": "a"}, "/prompt"),
        ({"text_input": "a", "parameters": []}, "/parameters"),
        ({"text_input": "a", "parameters": {"max_tokens": 0}}, "/parameters/max_tokens"),
        ({"text_input": "a", "parameters": {"max_tokens": 1000}}, "/parameters/max_tokens"),
        ({"text_input": "a", "parameters": {"model": "x"}}, "/parameters/model"),
        ({"text_input": "a", "parameters": {"count": 1}}, "/parameters/count"),
        ({"text_input": "a", "parameters": {"details": 1}}, "/parameters/details"),
        ({"text_input": "a", "parameters": {"stop": [""]}}, "/parameters/stop/0"),
        ({"text_input": "a", "parameters": {"exclude_input_in_output": False}}, "/parameters/exclude_input_in_output"),
        ({"text_input": "a", "parameters": {"exclude_input_in_output": 1.0}}, "/parameters/exclude_input_in_output"),
        ({"text_input": "a", "parameters": {"stream": 1}}, "/parameters/stream"),
        ({"text_input": "a", "parameters": {"stream": 0}}, "/parameters/stream"),
    ],
    ids=str,
)
@pytest.mark.parametrize("path", [PATH, f"{PATH}_stream"], ids=["whole", "stream"])
def test_errors_point_into_the_body(path: str, body: Any, pointer: str, client: TestClient) -> None:
    response = client.post(path, json=body)
    problem = response.json()
    assert (response.status_code, problem["code"]) == (422, "invalid-request")
    assert problem["errors"][0]["pointer"] == pointer
    assert problem["error"] == problem["detail"]


def test_other_models_generate_no_text(client: TestClient) -> None:
    for name in ("tiny-images", "tiny-pictures"):
        response = client.post(f"/v2/models/{name}/generate", json=BODY)
        assert (response.status_code, response.json()["code"]) == (422, "wrong-task")
    assert client.post("/v2/models/none/generate", json=BODY).status_code == 404
