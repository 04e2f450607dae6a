"""The BentoML service: what its pages show, what it needs, and that both of its doors give the same answer."""

import asyncio
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.service.bundles import FAMILIES, TASK_OF_FAMILY
from tests.service.requests import request_body

ROOT = Path(__file__).parents[2]
ENDPOINTS = {
    "classify": "/classify",
    "sequence-predict": "/sequence-predict",
    "generate": "/generate",
    "predict": "/predict",
}


@pytest.fixture(autouse=True, scope="module")
def _app_is_imported() -> None:
    """The first import of BentoML in a process warns of what its dependencies call deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import service.app  # noqa: F401


@pytest.mark.parametrize("family", FAMILIES)
def test_both_doors_give_the_same_answer(family: str, client: TestClient) -> None:
    import bentoml

    from service.tasks import TASKS as HANDLERS

    task = TASK_OF_FAMILY[family]
    over_http = client.post(ENDPOINTS[task], json=request_body(family)).json()
    method = getattr(bentoml.get_current_service(), task.replace("-", "_")).local
    answer = asyncio.run(method(HANDLERS[task].request(**request_body(family))))
    assert answer.model_dump(mode="json", exclude_none=True) == over_http


def test_the_api_page_names_describes_and_exemplifies_every_endpoint(client: TestClient) -> None:
    assert client.get("/").status_code == 200
    page = client.get("/docs.json").json()
    for path in ENDPOINTS.values():
        endpoint = page["paths"][path]["post"]
        assert endpoint["description"]
        schema = endpoint["requestBody"]["content"]["application/json"]["schema"]
        assert set(schema["example"]) <= set(schema["properties"])
        assert schema["example"]["model"] in {"mnist-cnn", "news-lstm", "text-transformer"}
        undescribed = [name for name, field in schema["properties"].items() if not field.get("description")]
        assert not undescribed
        answer = endpoint["responses"]["200"]["content"]["application/json"]["schema"]
        assert {"model", "version"} <= set(answer["properties"])


def test_bentos_own_schema_knows_the_routes(client: TestClient) -> None:
    routes = client.get("/schema.json").json()["routes"]
    assert {route["route"] for route in routes} == set(ENDPOINTS.values())
    assert all(route["input"]["root_input"] for route in routes)


ALONE = """
import sys, warnings
for name in ("torch", "onnx", "onnxscript", "training", "export"):
    sys.modules[name] = None
warnings.simplefilter("ignore")
import json, time
from starlette.testclient import TestClient
from service.app import Ekiben
with TestClient(Ekiben.to_asgi()) as client:
    first = client.get("/livez").status_code
    for _ in range(1200):  # a minute
        ready = client.get("/readyz")
        if ready.status_code == 200 or "no model folder" in ready.text:
            break
        time.sleep(0.05)
    answer = client.post("/generate", json={"model": "tiny-letters", "prompt": "the ", "seed": 1, "max_tokens": 3})
    print(json.dumps([first, ready.status_code, ready.json(), answer.status_code, answer.json()]))
"""


def ask_in_subprocess(bundles: Path, script: str = ALONE) -> list[Any]:
    """What the script prints in a process of its own; by default livez, readyz and generate, these with documents."""
    outside = {key: value for key, value in os.environ.items() if not key.startswith("EKIBEN_")}
    environment = {**outside, "EKIBEN_BUNDLES": str(bundles), "BENTOML_DO_NOT_TRACK": "True"}
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    found: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_service_answers_without_torch_and_onnx(served_bundles: Path) -> None:
    live, ready, _, status, answer = ask_in_subprocess(served_bundles)
    assert (live, ready, status) == (200, 200, 200)
    assert answer["completions"][0]["tokens"] == 3


def test_without_models_the_service_lives_but_is_not_ready(tmp_path: Path) -> None:
    live, ready, problem, status, refused = ask_in_subprocess(tmp_path)
    assert (live, ready, status) == (200, 503, 404)
    assert f"no model folder in {tmp_path}: export a model first" in problem["detail"]
    assert refused["code"] == "unknown-model"


ON_A_GPU = """
import warnings
warnings.simplefilter("ignore")
import json, os, time
import pytest
from starlette.testclient import TestClient
import service.app
from tests.service.engine.gpu.fake_gpu import MIB, FakeGpu
from tests.service.requests import request_body
os.environ["EKIBEN_THREADS"] = "1"
patch = pytest.MonkeyPatch()
gpu = FakeGpu(patch, total=8000 * MIB, weights_bytes=10 * MIB, row_bytes=10 * MIB)
patch.setattr(service.app, "resolve_device", lambda setting, allow_tf32: "cuda")
with TestClient(service.app.Ekiben.to_asgi(), raise_server_exceptions=False) as client:
    for _ in range(1200):  # a minute
        if client.get("/readyz").status_code == 200:
            break
        time.sleep(0.05)
    model = client.get("/models/tiny-images").json()
    def classify():
        answer = client.post("/classify", json=request_body("image-classifier"))
        return [answer.status_code, answer.json().get("code"), answer.headers.get("retry-after")]
    before = classify()
    gpu.row_bytes = 1000 * MIB
    refused = classify()
    gpu.row_bytes = 10 * MIB
    ready = client.get("/readyz").status_code
    print(json.dumps([model["device"], model["memory"], before, refused, classify(), ready]))
"""


def test_a_run_that_exceeds_its_bound_on_a_gpu_is_refused_and_the_service_lives(served_bundles: Path) -> None:
    device, memory, before, refused, after, ready = ask_in_subprocess(served_bundles, ON_A_GPU)
    assert device == "cuda"
    # The weights, eight rows for one batch and for the health check, and the margin.
    assert (memory["device_bytes"], memory["max_device_bytes"]) == (90 << 20, (10 + 2 * 80 + 32) << 20)
    assert before == after == [200, None, None]
    assert refused == [503, "overloaded", "1"]
    assert ready == 200


def test_costly_extras_are_off() -> None:
    from service.app import Ekiben

    assert Ekiben.config["logging"]["access"]["enabled"] is False
    assert Ekiben.config["tracing"]["excluded_urls"] == ".*"
    assert Ekiben.config["workers"] == 1


def test_bentoml_still_has_the_private_parts_that_the_service_uses() -> None:
    """`Service` is imported from a private package, and its `to_asgi` is overridden."""
    import inspect

    import _bentoml_sdk

    from service.app import Ekiben, RoutedService

    assert issubclass(RoutedService, _bentoml_sdk.Service)
    assert isinstance(Ekiben, RoutedService)
    assert list(inspect.signature(_bentoml_sdk.Service.to_asgi).parameters) == ["self", "is_main"]
    assert "add_asgi_middleware" in vars(_bentoml_sdk.Service)
