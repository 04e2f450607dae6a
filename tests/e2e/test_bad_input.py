"""Every invalid request is refused with a clear error, and the server stays ready."""

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
    """For each family, the description of one of its models."""
    names = [model["name"] for model in http.get("/models").json()["models"]]
    described = [http.get(f"/models/{name}").json() for name in names]
    return {model["pair"]: model for model in described}


INVALID: dict[str, tuple[str, str, Any]] = {
    # name: family, path, and the body or a function that makes it from the description of a model
    "unknown model": ("", "/classify", {"model": "no-such", "images": [[[0]]]}),
    "wrong task": ("text -> labels", "/classify", lambda m: {"images": [[[0]]]}),
    "wrong shape": ("image -> labels", "/classify", lambda m: {"images": [[[0, 1], [2, 3]]]}),
    "wrong size": ("image -> labels", "/classify", lambda m: {"images": [png(3, 500)]}),
    "not an image": ("image -> labels", "/classify", lambda m: {"images": [base64.b64encode(b"text").decode()]}),
    "text for an image": ("image -> labels", "/classify", lambda m: {"images": ["a seven, please"]}),
    "too many items": ("image -> labels", "/classify", lambda m: {"images": ["x"] * (m["limits"]["max_items"] + 1)}),
    "no items": ("image -> labels", "/classify", lambda m: {"images": []}),
    "no steps": ("series -> labels", "/sequence-predict", lambda m: {"sequences": [[]]}),
    "wrong channels": ("series -> labels", "/sequence-predict", lambda m: {"sequences": [[[1.0]]]}),
    "text for numbers": ("series -> labels", "/sequence-predict", lambda m: {"sequences": [[["1"] * 12]]}),
    "too many steps": (
        "series -> labels",
        "/sequence-predict",
        lambda m: {"sequences": [[[0.0] * m["reader"]["channels"]] * (m["limits"]["max_steps"] + 1)]},
    ),
    "state of another model": (
        "series -> token-labels",
        "/sequence-predict",
        lambda m: {"sequences": [[[0.0] * m["reader"]["channels"]]], "states": ["AAAA"]},
    ),
    "empty text": ("text -> labels", "/sequence-predict", lambda m: {"texts": [""]}),
    "text too long": (
        "text -> labels",
        "/sequence-predict",
        lambda m: {"texts": ["the train " * (m["limits"]["max_steps"] + 1)]},
    ),
    "prompt too long": (
        "text -> language-model", "/generate", lambda m: {"prompt": "a" * (m["limits"]["max_steps"] + 1)}
    ),
    "too many tokens": (
        "text -> language-model", "/generate", lambda m: {"prompt": "a", "max_tokens": m["limits"]["max_steps"] + 1}
    ),
    "temperature too high": ("text -> language-model", "/generate", lambda m: {"prompt": "a", "temperature": 1e9}),
    "too many images": ("tensors -> image", "/generate", lambda m: {"count": m["limits"]["max_items"] + 1}),
}  # fmt: skip


@pytest.mark.parametrize("name", INVALID)
def test_invalid_request_is_refused_with_field_and_item(name: str, http: httpx.Client, models: dict[str, Any]) -> None:
    family, path, body = INVALID[name]
    if family and family not in models:
        pytest.skip(f"no {family} is loaded")
    request = {"model": models[family]["name"], **body(models[family])} if family else body
    response = http.post(path, json=request)
    assert 400 <= response.status_code < 500
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["errors"], problem
    assert problem["errors"][0]["pointer"].split("/")[1] in {*request}
    assert http.get("/readyz").status_code == 200


def test_nan_is_refused_with_its_position(http: httpx.Client, models: dict[str, Any]) -> None:
    model = models.get("series -> labels", {"name": "any"})
    body = f'{{"model": "{model["name"]}", "sequences": [[[0.5, NaN]]]}}'
    problem = http.post("/sequence-predict", content=body, headers=JSON)
    assert problem.status_code == 422
    assert problem.json()["errors"][0]["pointer"] == "/sequences/0/0/1"


@pytest.mark.parametrize("with_length", [True, False])
def test_body_of_50_mb_is_refused(with_length: bool, http: httpx.Client) -> None:
    content: Any = b"".join(megabytes(50)) if with_length else megabytes(50)
    response = http.post("/classify", content=content, headers=JSON)
    assert response.status_code == 413
    assert response.json()["code"] == "body-too-large"
    assert http.get("/readyz").status_code == 200


def test_server_stays_ready_after_many_invalid_requests(http: httpx.Client) -> None:
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
