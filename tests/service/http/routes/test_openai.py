"""OpenAI's routes: their errors, their streams, and the list of models. The answers are tested with the tasks."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.service.chat_bundle import CYCLE, NAME
from tests.service.event_streams import read_events

COMPLETION = {"model": NAME, "prompt": "a", "temperature": 0, "max_tokens": 13, "seed": 1}
CHAT = {"model": NAME, "messages": [{"role": "user", "content": "b"}], "temperature": 0, "max_tokens": 3}


def test_completions_and_chats_are_answered(client: TestClient) -> None:
    completion = client.post("/v1/completions", json=COMPLETION).json()
    assert completion["choices"][0]["text"] == CYCLE[1:] + "a"
    chat = client.post("/v1/chat/completions", json=CHAT).json()
    assert chat["choices"][0]["message"]["content"].startswith("b ")


@pytest.mark.parametrize(("path", "body"), [("/v1/completions", COMPLETION), ("/v1/chat/completions", CHAT)])
def test_a_stream_ends_with_one_done(path: str, body: dict[str, Any], client: TestClient) -> None:
    response = client.post(path, json={**body, "stream": True})
    assert response.headers["content-type"] == "text/event-stream"
    events = read_events(response.text)
    assert [content for _, content in events if content == "[DONE]"] == ["[DONE]"] == [events[-1][1]]
    assert all(name == "" for name, _ in events)
    assert events[-2][1]["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/v1/completions", {**COMPLETION, "suffix": "x"}, (400, "suffix", "invalid-request")),
        ("/v1/completions", {**COMPLETION, "prompt": ["a", ""], "stream": True}, (400, "prompt", "invalid-request")),
        ("/v1/completions", {**COMPLETION, "model": "none", "stream": True}, (404, "model", "model_not_found")),
        ("/v1/completions", {**COMPLETION, "model": "tiny-pictures"}, (400, "model", "wrong-task")),
        ("/v1/completions", {**COMPLETION, "model": "tiny-images"}, (400, "model", "wrong-task")),
        ("/v1/chat/completions", {**CHAT, "model": "tiny-letters"}, (400, "model", "wrong-task")),
        ("/v1/completions", [], (400, None, "invalid-request")),
        ("/v1/embeddings", {}, (404, None, "unknown-route")),
    ],
)
def test_errors_are_openais_error_objects(
    path: str, body: Any, expected: tuple[int, str | None, str], client: TestClient
) -> None:
    response = client.post(path, json=body)
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert set(response.json()) == {"error"}
    assert error["type"] == "invalid_request_error"
    assert (response.status_code, error["param"], error["code"]) == expected
    assert error["message"]


def test_malformed_bodies_and_other_methods_are_refused(client: TestClient) -> None:
    broken = client.post("/v1/completions", content=b"{", headers={"content-type": "application/json"})
    assert (broken.status_code, broken.json()["error"]["code"]) == (400, "malformed-json")
    text = client.post("/v1/completions", content=b"{}", headers={"content-type": "text/plain"})
    assert (text.status_code, text.json()["error"]["code"]) == (415, "unsupported-media-type")
    got = client.get("/v1/completions")
    assert (got.status_code, got.headers["allow"]) == (405, "POST")


def test_models_are_the_language_models(client: TestClient) -> None:
    listed = client.get("/v1/models").json()
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == [NAME, "tiny-letters"]
    assert client.get(f"/v1/models/{NAME}").json() == listed["data"][0]
    assert set(listed["data"][0]) == {"id", "object", "created", "owned_by"}
    assert listed["data"][0]["object"] == "model"


@pytest.mark.parametrize(("name", "status"), [("none", 404), ("tiny-images", 400)])
def test_other_models_are_not_described(name: str, status: int, client: TestClient) -> None:
    assert client.get(f"/v1/models/{name}").status_code == status


def test_a_deadline_before_the_first_token_is_an_error(client: TestClient) -> None:
    body = {**COMPLETION, "model": "tiny-letters", "prompt": ["the "] * 8, "max_tokens": 150, "stream": True}
    response = client.post("/v1/completions", json=body, headers={"x-request-timeout-ms": "1"})
    if response.status_code == 200:  # the first token came in time
        assert read_events(response.text)[-1][1]["error"]["code"] == "timeout"
    else:
        assert (response.status_code, response.json()["error"]["code"]) in {(504, "timeout"), (503, "overloaded")}
