"""No input, however wrong, gets anything but a clear refusal, and the server goes on."""

import base64
import threading
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import httpx
import pytest
from PIL import Image as Pillow

JSON = {"content-type": "application/json"}


def png(width: int, height: int) -> str:
    buffer = BytesIO()
    Pillow.new("L", (width, height)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def megabytes(count: int) -> Iterator[bytes]:
    yield b'{"model": "'
    for _ in range(count):
        yield b"x" * (1 << 20)
    yield b'"}'


@pytest.fixture(scope="session")
def models(http: httpx.Client) -> dict[str, dict[str, Any]]:
    """family -> a model of it, in full."""
    names = [model["name"] for model in http.get("/models").json()["models"]]
    shown = [http.get(f"/models/{name}").json() for name in names]
    return {model["family"]: model for model in shown}


BAD: dict[str, tuple[str, str, Any]] = {
    # name: family, path, the body or what makes it from a model in full
    "no such model": ("", "/classify", {"model": "no-such", "images": [[[0]]]}),
    "wrong task": ("text-classifier", "/classify", lambda m: {"images": [[[0]]]}),
    "wrong shape": ("image-classifier", "/classify", lambda m: {"images": [[[0, 1], [2, 3]]]}),
    "wrong size": ("image-classifier", "/classify", lambda m: {"images": [png(3, 500)]}),
    "not an image": ("image-classifier", "/classify", lambda m: {"images": [base64.b64encode(b"text").decode()]}),
    "text for an image": ("image-classifier", "/classify", lambda m: {"images": ["a seven, please"]}),
    "too many items": ("image-classifier", "/classify", lambda m: {"images": ["x"] * (m["limits"]["max_items"] + 1)}),
    "no items": ("image-classifier", "/classify", lambda m: {"images": []}),
    "no steps": ("series-classifier", "/sequence-predict", lambda m: {"sequences": [[]]}),
    "wrong channels": ("series-classifier", "/sequence-predict", lambda m: {"sequences": [[[1.0]]]}),
    "text for numbers": ("series-classifier", "/sequence-predict", lambda m: {"sequences": [[["1"] * 12]]}),
    "too many steps": (
        "series-classifier",
        "/sequence-predict",
        lambda m: {"sequences": [[[0.0] * m["parameters"]["channels"]] * (m["limits"]["max_steps"] + 1)]},
    ),
    "a foreign state": (
        "series-tagger",
        "/sequence-predict",
        lambda m: {"sequences": [[[0.0] * m["parameters"]["channels"]]], "states": ["AAAA"]},
    ),
    "an empty text": ("text-classifier", "/sequence-predict", lambda m: {"texts": [""]}),
    "an over-long text": (
        "text-classifier",
        "/sequence-predict",
        lambda m: {"texts": ["the train " * (m["limits"]["max_steps"] + 1)]},
    ),
    "an over-long prompt": ("language-model", "/generate", lambda m: {"prompt": "a" * (m["limits"]["max_steps"] + 1)}),
    "too many tokens": (
        "language-model", "/generate", lambda m: {"prompt": "a", "max_tokens": m["limits"]["max_steps"] + 1}
    ),
    "a hot temperature": ("language-model", "/generate", lambda m: {"prompt": "a", "temperature": 1e9}),
    "too many pictures": ("image-generator", "/generate", lambda m: {"count": m["limits"]["max_items"] + 1}),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_it_is_refused_with_field_and_item(name: str, http: httpx.Client, models: dict[str, Any]) -> None:
    family, path, body = BAD[name]
    if family and family not in models:
        pytest.skip(f"no {family} is served")
    sent = {"model": models[family]["name"], **body(models[family])} if family else body
    response = http.post(path, json=sent)
    assert 400 <= response.status_code < 500
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["errors"], problem
    assert problem["errors"][0]["pointer"].split("/")[1] in {*sent}
    assert http.get("/readyz").status_code == 200


def test_nan_is_refused_with_its_place(http: httpx.Client, models: dict[str, Any]) -> None:
    model = models.get("series-classifier", {"name": "any"})
    body = f'{{"model": "{model["name"]}", "sequences": [[[0.5, NaN]]]}}'
    problem = http.post("/sequence-predict", content=body, headers=JSON)
    assert problem.status_code == 422
    assert problem.json()["errors"][0]["pointer"] == "/sequences/0/0/1"


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_of_50_mb_is_refused(announced: bool, http: httpx.Client) -> None:
    content: Any = b"".join(megabytes(50)) if announced else megabytes(50)
    response = http.post("/classify", content=content, headers=JSON)
    assert response.status_code == 413
    assert response.json()["code"] == "body-too-large"
    assert http.get("/readyz").status_code == 200


def test_a_flood_of_bad_requests_leaves_the_server_well(http: httpx.Client) -> None:
    bodies = [b"", b"{", b"[" * 9999, b'{"model": 7}', b"\xff", b'{"model": "mnist-cnn", "images": [null]}'] * 8
    statuses: list[int] = []

    def send(body: bytes) -> None:
        statuses.append(http.post("/classify", content=body, headers=JSON).status_code)

    threads = [threading.Thread(target=send, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(statuses) == len(bodies)
    assert all(400 <= status < 500 for status in statuses)
    assert http.get("/readyz").status_code == 200
