"""Every pair of reader and head becomes READY, and both hosts answer POST /predict with the same bytes."""

import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from service.bundle import RequestCase
from service.tasks.replay import answer_request_sync
from tests.e2e.serving import SERVE, ServerProcess
from tests.service.bundles import bundle_files, write_bundle
from tests.service.hosts import GRANIAN, JSON, Answer, ask, running_server
from tests.service.pairs import ALL_PAIRS, ROW, load_pair, request_body, write_with_requests
from tests.service.requests import request_body as family_request
from tests.service.tensor_bundles import write_second_axis

RNG = np.random.default_rng(11)
PHOTO = RNG.integers(0, 256, (40, 25, 3), dtype=np.uint8)
SIZES = [RNG.integers(0, 256, (*size, 3), dtype=np.uint8).tolist() for size in ((3, 4), (9, 7), (12, 10), (9, 7))]


def file_of(pixels: np.ndarray[Any, Any], kind: str = "PNG") -> bytes:
    buffer = BytesIO()
    Pillow.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles of every pair, each with a stored request that loading replays, and a language model."""
    root, staging = tmp_path_factory.mktemp("pairs"), tmp_path_factory.mktemp("staging")
    for name in ALL_PAIRS:
        write_with_requests(root, staging, name)
    write_second_axis(root)
    letters = RequestCase(request=family_request("language-model"), answer=_letters(staging))
    write_bundle(root, "language-model", files=bundle_files("language-model", requests=[letters]))
    return root


def _letters(staging: Path) -> dict[str, Any]:
    from service.bundle import open_bundle
    from tests.service.pairs import load

    return answer_request_sync(
        load(open_bundle(write_bundle(staging, "language-model"))), family_request("language-model")
    )


@pytest.fixture(scope="module")
def granian(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running_server(GRANIAN, folder, tmp_path_factory.mktemp("granian")) as started:
        yield started


@pytest.fixture(scope="module")
def bentoml(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running_server(SERVE, folder, tmp_path_factory.mktemp("bentoml")) as started:
        yield started


def post(host: ServerProcess, path: str, body: Any) -> Answer:
    return ask(host.port, "POST", path, json.dumps(body), **JSON)


def test_every_pair_is_ready(granian: ServerProcess, bentoml: ServerProcess) -> None:
    for host in (granian, bentoml):
        models = json.loads(ask(host.port, "GET", "/models")[2])["models"]
        reasons = {model["name"]: model["reason"] for model in models if model["state"] != "READY"}
        assert not reasons
        assert {model["name"] for model in models} == {*ALL_PAIRS, "second-axis", "tiny-letters"}


@pytest.mark.parametrize("name", ALL_PAIRS)
def test_both_hosts_answer_with_the_same_bytes(
    name: str, *, granian: ServerProcess, bentoml: ServerProcess, tmp_path: Path
) -> None:
    (status, _, answer), (other_status, _, other) = (
        post(host, "/predict", request_body(name)) for host in (granian, bentoml)
    )
    assert (status, other_status) == (200, 200), answer
    assert answer == other
    expected = answer_request_sync(load_pair(tmp_path, name), request_body(name))
    assert {**json.loads(answer), "version": ""} == {**expected, "version": ""}


@pytest.mark.parametrize(
    ("path", "content_type", "content"),
    [
        ("/predict?model=tiny-photos", "image/jpeg", file_of(PHOTO, "JPEG")),
        ("/predict?model=tiny-photos&top_k=1", "image/png", file_of(PHOTO)),
        ("/predict?model=tiny-scenes&threshold=0.9", "image/png", file_of(PHOTO[:4, :4, 0])),
        ("/predict?model=tiny-masks", "image/png", file_of(PHOTO[:7, :9, 0])),
        ("/classify?model=tiny-photos", "image/jpeg", file_of(PHOTO, "JPEG")),
    ],
)
def test_a_file_gets_the_answer_of_its_base64(
    path: str, content_type: str, content: bytes, *, granian: ServerProcess, bentoml: ServerProcess
) -> None:
    (status, _, answer), (_, _, other) = (
        ask(host.port, "POST", path, content, content_type=content_type) for host in (granian, bentoml)
    )
    assert status == 200, answer
    assert answer == other
    route, _, query = path.partition("?")
    fields = {key: json.loads(value) for key, value in (pair.split("=") for pair in query.split("&")[1:])}
    name = query.split("&")[0].removeprefix("model=")
    body = {"model": name, "images": [base64.b64encode(content).decode()], **fields}
    assert post(granian, route, body)[2] == answer


def test_rows_and_tokens_have_their_routes_too(granian: ServerProcess) -> None:
    for route, name in (
        ("/classify", "tiny-customers"), ("/sequence-predict", "tiny-names"), ("/sequence-predict", "tiny-steps"),
    ):  # fmt: skip
        assert post(granian, route, request_body(name))[2] == post(granian, "/predict", request_body(name))[2]


def test_images_of_different_sizes_are_answered_in_order(granian: ServerProcess) -> None:
    status, _, answer = post(granian, "/predict", {"model": "tiny-detector", "images": SIZES})
    assert status == 200
    single = [post(granian, "/predict", {"model": "tiny-detector", "images": [image]})[2] for image in SIZES]
    assert json.loads(answer)["predictions"] == [json.loads(text)["predictions"][0] for text in single]


BAD_ITEMS = {"images": "AAAA", "texts": "", "sequences": [[1.0]], "rows": {}}


@pytest.mark.parametrize("name", ALL_PAIRS)
def test_no_company_changes_an_answer(name: str, granian: ServerProcess) -> None:
    """Requests at the same time, some with a bad item: every good one gets the bytes that it gets alone."""
    body = request_body(name)
    bodies = [body]
    for field, bad in BAD_ITEMS.items():
        if field in body:
            bodies += [{**body, field: [item]} for item in body[field]]
            bodies += [{**body, field: body[field][::-1]}, {**body, field: [*body[field], bad]}]
    if "tensors" in body:
        bodies.append({**body, "tensors": {key: value[:1] for key, value in body["tensors"].items()}})
        bodies.append({**body, "tensors": dict.fromkeys(body["tensors"])})
    single = [post(granian, "/predict", one)[::2] for one in bodies]
    assert {status for status, _ in single} == {200, 422}
    with ThreadPoolExecutor(16) as pool:
        concurrent = list(pool.map(lambda one: post(granian, "/predict", one)[::2], bodies * 12))
    assert concurrent == single * 12


FAILURES: dict[str, tuple[str, Any, int, str, str]] = {
    # name: path, body, status, code, pointer
    "a language model": ("/predict", {"model": "tiny-letters"}, 422, "wrong-task", "/model"),
    "values at classify": ("/classify", {"model": "tiny-prices", "rows": [ROW]}, 422, "wrong-task", "/model"),
    "no such model": ("/predict", {"model": "x", "rows": [ROW]}, 404, "unknown-model", "/model"),
    "an unknown category": (
        "/predict", {"model": "tiny-prices", "rows": [ROW, {**ROW, "city": "paris"}]}, 422, "invalid-request",
        "/rows/1/city",
    ),
    "rows for images": ("/predict", {"model": "tiny-scenes", "rows": [ROW]}, 422, "invalid-request", "/rows"),
    "too large an image": (
        "/predict", {"model": "tiny-masks", "images": [[[1] * 3] * 13]}, 422, "invalid-request", "/images/0",
    ),
    "a tensor of another shape": (
        "/predict", {"model": "tiny-tensors", "tensors": {"points": [[1]], "weights": [1]}}, 422, "invalid-request",
        "/tensors/points",
    ),
    "images for rows": (
        "/classify", {"model": "tiny-customers", "images": [[[1]]]}, 422, "invalid-request", "/images",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILURES)
def test_a_refusal_names_the_field(name: str, *, granian: ServerProcess, bentoml: ServerProcess) -> None:
    path, body, expected_status, code, pointer = FAILURES[name]
    (status, _, answer), (_, _, other) = (post(host, path, body) for host in (granian, bentoml))
    problem = json.loads(answer)
    assert answer == other
    assert (status, problem["code"], problem["errors"][0]["pointer"]) == (expected_status, code, pointer)


def test_a_language_model_names_its_route(granian: ServerProcess) -> None:
    detail = json.loads(post(granian, "/predict", {"model": "tiny-letters"})[2])["detail"]
    assert detail == "tiny-letters is a generate model: send the request to /generate, not /predict"
    known = json.loads(post(granian, "/predict", {"model": "x"})[2])["detail"]
    assert "tiny-prices" in known
    assert "tiny-letters" not in known


def test_a_file_for_a_model_of_rows_is_refused(granian: ServerProcess) -> None:
    path = "/predict?model=tiny-prices"
    status, _, answer = ask(granian.port, "POST", path, file_of(PHOTO), content_type="image/png")
    assert (status, json.loads(answer)["code"]) == (415, "unsupported-media-type")
    path = "/predict?model=tiny-photos&threshold=x"
    status, _, answer = ask(granian.port, "POST", path, file_of(PHOTO), content_type="image/png")
    assert (status, json.loads(answer)["errors"][0]["pointer"]) == (422, "/threshold")


@pytest.mark.parametrize("name", [*ALL_PAIRS, "second-axis"])
def test_the_example_of_a_model_is_answered(name: str, *, granian: ServerProcess) -> None:
    described = json.loads(ask(granian.port, "GET", f"/models/{name}")[2])
    requests = described["requests"]
    status, _, answer = post(granian, "/predict", requests["example"])
    assert status == 200, answer
    assert requests["routes"][-1] == "/predict"
    assert described["reader"]["kind"]
