"""Every native route of the application, and every failure of a request."""

import base64
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from starlette.testclient import TestClient

from service.http.wire.errors import STATUS
from tests.service.bundles import CONTEXT, NAMES
from tests.service.event_streams import read_events

PIXELS = np.random.default_rng(5).integers(0, 256, (4, 4), dtype=np.uint8)
IMAGES, SERIES, TEXTS = {"model": "tiny-images"}, {"model": "tiny-series"}, {"model": "tiny-texts"}
LETTERS, PICTURES, TAGS = {"model": "tiny-letters"}, {"model": "tiny-pictures"}, {"model": "tiny-tags"}


def file_of(pixels: np.ndarray[Any, Any], kind: str = "PNG") -> bytes:
    buffer = BytesIO()
    Pillow.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


PNG = file_of(PIXELS)


def decode(png: str | bytes) -> np.ndarray[Any, Any]:
    return np.asarray(Pillow.open(BytesIO(base64.b64decode(png) if isinstance(png, str) else png)))


def test_pixels_base64_and_upload_give_the_same_prediction(client: TestClient) -> None:
    body = {**IMAGES, "images": [PIXELS.tolist(), base64.b64encode(PNG).decode()]}
    first, second = client.post("/classify", json=body).json()["predictions"]
    upload = client.post("/classify?model=tiny-images&top_k=3", content=PNG, headers={"content-type": "image/png"})
    assert upload.status_code == 200
    assert upload.headers["content-type"] == "application/json"
    assert first == second == upload.json()["predictions"][0]
    assert len(first["top"]) == 3


def test_sequences_texts_and_prompts_get_predictions(client: TestClient) -> None:
    series = client.post("/sequence-predict", json={**SERIES, "sequences": [[[0.5, 1]], [[1, 2], [3, 4]]]})
    texts = client.post("/sequence-predict", json={**TEXTS, "texts": ["rice", "the train leaves"]})
    letters = client.post("/generate", json={**LETTERS, "prompt": "the ", "max_tokens": 5, "seed": 1})
    assert [r.status_code for r in (series, texts, letters)] == [200] * 3
    assert len(series.json()["predictions"]) == 2
    assert [p["tokens"] for p in texts.json()["predictions"]] == [1, 3]
    assert letters.json()["completions"][0]["tokens"] == 5


def test_a_prompt_gets_as_many_tokens_in_a_list_as_alone(client: TestClient) -> None:
    prompts = ["the ", "a" * (CONTEXT - 7)]

    def completions(prompt: str | list[str]) -> list[dict[str, Any]]:
        response = client.post("/generate", json={**LETTERS, "prompt": prompt, "seed": 1})
        completions: list[dict[str, Any]] = response.json()["completions"]
        return completions

    from_list = completions(prompts)
    assert from_list == [completions(prompt)[0] for prompt in prompts]
    assert [completion["tokens"] for completion in from_list] == [64, 7]


def test_generated_images_are_sent_as_json_or_as_one_png(client: TestClient) -> None:
    body = {**PICTURES, "count": 4, "seed": 9}
    images = [decode(image) for image in client.post("/generate", json=body).json()["images"]]
    grid = client.post("/generate", json=body, headers={"accept": "image/png"})
    assert grid.headers["content-type"] == "image/png"
    canvas = decode(grid.content)
    assert canvas.shape == (4 + 2 + 4, 4 + 2 + 4)
    assert np.array_equal(canvas[6:, 6:], images[3])
    assert grid.headers["x-seed"] == "9"


def test_a_png_response_names_its_random_seed(client: TestClient) -> None:
    responses = [client.post("/generate", json=PICTURES, headers={"accept": "image/png"}) for _ in range(3)]
    seeds = [int(response.headers["x-seed"]) for response in responses]
    assert len(set(seeds)) == 3
    repeated = client.post("/generate", json={**PICTURES, "seed": seeds[0]}, headers={"accept": "image/png"})
    assert repeated.content == responses[0].content


def test_models_are_listed_and_described(client: TestClient) -> None:
    listed = client.get("/models").json()["models"]
    assert {model["name"]: model["state"] for model in listed} == dict.fromkeys(NAMES.values(), "READY") | {
        "tiny-chat": "READY"
    }
    described = client.get("/models/tiny-images").json()
    assert described["labels"] == ["dog", "cat", "owl"]
    assert described["provider"] == "CPUExecutionProvider"
    assert client.get("/models/").json() == client.get("/models").json()
    head = client.head("/models")
    assert (head.status_code, head.content) == (200, b"")


def test_top_k_of_an_upload_may_have_any_number_of_digits(client: TestClient) -> None:
    def upload(top_k: str) -> Any:
        return client.post(
            f"/classify?model=tiny-images&top_k={top_k}", content=PNG, headers={"content-type": "image/png"}
        )

    assert len(upload("0" * 5000 + "2").json()["predictions"][0]["top"]) == 2
    for top_k in ("0" * 12, "9" * 5000, "-1", "%D9%A3"):
        assert upload(top_k).status_code == 422
        assert upload(top_k).json()["errors"][0]["pointer"] == "/top_k"


def test_probes_succeed(client: TestClient) -> None:
    assert client.get("/readyz").json() == {"ready": True}
    assert client.get("/livez").status_code == 200


JSON = {"content-type": "application/json"}
CLASSIFY = {**IMAGES, "images": [PIXELS.tolist()]}
FAILURES: dict[str, tuple[str, str, dict[str, Any], str, str]] = {
    # name: method, path, request, code, pointer
    "no body": ("POST", "/classify", {"content": b"", "headers": JSON}, "malformed-json", ""),
    "half a body": ("POST", "/classify", {"content": b'{"model": "a"', "headers": JSON}, "malformed-json", ""),
    "not UTF-8": ("POST", "/classify", {"content": b'{"model": "\xff"}', "headers": JSON}, "malformed-json", ""),
    "deep nesting": ("POST", "/classify", {"content": b"[" * 9999, "headers": JSON}, "malformed-json", ""),
    "a list": ("POST", "/classify", {"json": []}, "invalid-request", ""),
    "a form": ("POST", "/classify", {"data": {"model": "tiny-images"}}, "unsupported-media-type", ""),
    "no content type": ("POST", "/classify", {"content": b"{}"}, "unsupported-media-type", ""),
    "an image for texts": (
        "POST", "/sequence-predict", {"content": PNG, "headers": {"content-type": "image/png"}},
        "unsupported-media-type", "",
    ),
    "a pickle": (
        "POST", "/classify", {"content": b"\x80", "headers": {"content-type": "application/vnd.bentoml+pickle"}},
        "unsupported-media-type", "",
    ),
    "gzip": (
        "POST", "/classify", {"content": b"\x1f\x8b", "headers": {**JSON, "content-encoding": "gzip"}},
        "malformed-message", "",
    ),
    "a coding that is not known": (
        "POST", "/classify", {"content": b"{}", "headers": {**JSON, "content-encoding": "br"}},
        "unsupported-media-type", "",
    ),
    "a parameter twice": (
        "POST", "/classify?model=tiny-images&model=x", {"content": b"", "headers": {"content-type": "image/png"}},
        "invalid-request", "/model",
    ),
    "a member twice": (
        "POST", "/classify", {"content": b'{"model": "x", "images": [], "model": "y"}', "headers": JSON},
        "invalid-request", "/model",
    ),
    "too large": ("POST", "/classify", {"content": b" " * 65537, "headers": JSON}, "body-too-large", ""),
    "too large, in chunks": (
        "POST", "/classify", {"content": iter([b" " * 40000] * 2), "headers": JSON}, "body-too-large", "",
    ),
    "too large an image": (
        "POST", "/classify?model=tiny-images", {"content": bytes(65537), "headers": {"content-type": "image/png"}},
        "body-too-large", "",
    ),
    "no model": ("POST", "/classify", {"json": {"images": []}}, "invalid-request", "/model"),
    "unknown model": ("POST", "/classify", {"json": {**CLASSIFY, "model": "x"}}, "unknown-model", "/model"),
    "half a surrogate": (
        "POST", "/classify", {"content": b'{"model": "\\ud800", "images": []}', "headers": JSON}, "malformed-json", "",
    ),
    "wrong task": ("POST", "/classify", {"json": {**CLASSIFY, "model": "tiny-texts"}}, "wrong-task", "/model"),
    "unknown field": ("POST", "/classify", {"json": {**CLASSIFY, "image": 1}}, "invalid-request", "/image"),
    "no images": ("POST", "/classify", {"json": {**IMAGES, "images": []}}, "invalid-request", "/images"),
    "wrong size": ("POST", "/classify", {"json": {**IMAGES, "images": [[[1]]]}}, "invalid-request", "/images/0"),
    "a NaN pixel": (
        "POST", "/classify", {"content": b'{"model":"tiny-images","images":[[[NaN]]]}', "headers": JSON},
        "invalid-request", "/images/0/0/0",
    ),
    "text for a pixel": (
        "POST", "/classify", {"json": {**IMAGES, "images": [[["1", 0, 0, 0]] * 4]}}, "invalid-request", "/images/0/0/0",
    ),
    "no image": ("POST", "/classify", {"json": {**IMAGES, "images": ["aGk="]}}, "invalid-request", "/images/0"),
    "a broken upload": (
        "POST", "/classify?model=tiny-images", {"content": PNG[:30], "headers": {"content-type": "image/png"}},
        "invalid-request", "",
    ),
    "an upload without a model": (
        "POST", "/classify", {"content": PNG, "headers": {"content-type": "image/png"}}, "invalid-request", "/model",
    ),
    "an upload with a bad top_k": (
        "POST", "/classify?model=tiny-images&top_k=x", {"content": PNG, "headers": {"content-type": "image/png"}},
        "invalid-request", "/top_k",
    ),
    "NaN in a series": (
        "POST", "/sequence-predict", {"content": b'{"model":"tiny-series","sequences":[[[1,NaN]]]}', "headers": JSON},
        "invalid-request", "/sequences/0/0/1",
    ),
    "no steps": (
        "POST", "/sequence-predict", {"json": {**SERIES, "sequences": [[]]}}, "invalid-request", "/sequences/0",
    ),
    "too many steps": (
        "POST", "/sequence-predict", {"json": {**SERIES, "sequences": [[[1, 2]], [[1, 2]] * 13]}},
        "invalid-request", "/sequences/1",
    ),
    "texts for a series": (
        "POST", "/sequence-predict", {"json": {**SERIES, "texts": ["a"]}}, "invalid-request", "/texts",
    ),
    "a text that is too long": (
        "POST", "/sequence-predict", {"json": {**TEXTS, "texts": ["rice " * 7]}}, "invalid-request", "/texts/0",
    ),
    "an unknown state": (
        "POST", "/sequence-predict", {"json": {**TAGS, "sequences": [[[1, 2]]], "states": ["A" * 40]}},
        "invalid-request", "/states/0",
    ),
    "no prompt": ("POST", "/generate", {"json": LETTERS}, "invalid-request", "/prompt"),
    "a temperature out of range": (
        "POST", "/generate", {"json": {**LETTERS, "prompt": "a", "temperature": 99}}, "invalid-request", "/temperature",
    ),
    "too many images": ("POST", "/generate", {"json": {**PICTURES, "count": 9}}, "invalid-request", "/count"),
    "a prompt for images": ("POST", "/generate", {"json": {**PICTURES, "prompt": "a"}}, "invalid-request", "/prompt"),
    "a PNG of text": (
        "POST", "/generate", {"json": {**LETTERS, "prompt": "a"}, "headers": {"accept": "image/png"}},
        "invalid-request", "/model",
    ),
    "GET of an endpoint": ("GET", "/classify", {}, "method-not-allowed", ""),
    "POST to the models": ("POST", "/models", {"json": {}}, "method-not-allowed", ""),
    "DELETE of a model": ("DELETE", "/models/tiny-images", {}, "method-not-allowed", ""),
    "an absent model": ("GET", "/models/x", {}, "unknown-model", ""),
    "an unknown path": ("GET", "/nothing", {}, "unknown-route", ""),
    "a path below an endpoint": ("POST", "/classify/x", {"json": {}}, "unknown-route", ""),
    "POST to a probe": ("POST", "/livez", {}, "method-not-allowed", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILURES)
def test_every_failure_is_a_problem_document(name: str, client: TestClient) -> None:
    method, path, arguments, code, pointer = FAILURES[name]
    response = client.request(method, path, **arguments)
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert set(problem) == {"type", "title", "status", "detail", "code", "errors"}
    assert problem["code"] == code, problem
    assert problem["status"] == response.status_code == STATUS[code]  # type: ignore[index]
    assert problem["detail"]
    assert all(error.keys() == {"pointer", "detail"} and error["detail"] for error in problem["errors"])
    if pointer:
        assert problem["errors"][0]["pointer"] == pointer
    assert "Traceback" not in response.text
    assert ("allow" in response.headers) is (code == "method-not-allowed")


def test_the_failures_cover_every_slug_of_an_invalid_request() -> None:
    """The other slugs need keys, or a service that is not ready, overloaded or failing; other tests cover them."""
    other_slugs = {"unauthorized", "forbidden", "misdirected", "rate-limited"}
    other_slugs |= {"target-too-long", "head-too-large", "not-ready", "overloaded", "timeout", "not-finite", "internal"}
    assert {code for *_, code, _ in FAILURES.values()} >= set(STATUS) - other_slugs


def test_a_stream_is_the_answer_in_parts(client: TestClient) -> None:
    body = {"model": "tiny-letters", "prompt": ["the ", "rice "], "seed": 3, "max_tokens": 9, "logprobs": True}
    whole = client.post("/generate", json=body).json()
    response = client.post("/generate/stream", json=body)
    assert response.headers["content-type"] == "text/event-stream"
    assert response.headers["x-seed"] == "3"
    *events, (name, end) = read_events(response.text)
    assert name == "end"
    assert {**end, "completions": None} == {**whole, "completions": None}
    for index, completion in enumerate(whole["completions"]):
        parts = [event for _, event in events if event["index"] == index]
        assert "".join(part["text"] for part in parts) == completion["text"]
        assert [entry for part in parts for entry in part["logprobs"]] == completion["logprobs"]
        assert ["finish_reason" in part for part in parts] == [False] * (len(parts) - 1) + [True]
        last = {key: completion[key] for key in ("finish_reason", "tokens")}
        assert {key: parts[-1][key] for key in last} == last == end["completions"][index]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"model": "tiny-pictures", "count": 1}, 422, "wrong-task"),
        ({"model": "tiny-letters", "prompt": ""}, 422, "invalid-request"),
        ({"model": "none", "prompt": "a"}, 404, "unknown-model"),
    ],
)
def test_a_stream_that_cannot_begin_is_a_problem(
    body: dict[str, Any], status: int, code: str, client: TestClient
) -> None:
    response = client.post("/generate/stream", json=body)
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/classify", "/predict", "/sequence-predict", "/generate", "/generate/stream"])
def test_a_query_beside_a_json_body_is_refused(path: str, client: TestClient) -> None:
    """Its parameters would be ignored."""
    body = {"model": "tiny-images", "images": [[[0] * 4] * 4]}
    problem = client.post(f"{path}?top_k=1&a%2Fb=", json=body).json()
    assert problem["code"] == "invalid-request"
    assert [fault["pointer"] for fault in problem["errors"]] == ["/top_k", "/a~1b"]
    assert client.post(f"{path}?top_k", json=body).json()["errors"][0]["pointer"] == "/top_k"
