"""BentoML's client discovers the endpoints."""

import warnings
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from service.tasks.classify import EXAMPLE_PNG


@pytest.fixture(scope="module")
def client(server: str) -> Iterator[Any]:
    with warnings.catch_warnings():
        # BentoML calls deprecated functions of its dependencies.
        warnings.simplefilter("ignore")
        import bentoml

        with bentoml.SyncHTTPClient(server) as client:
            yield client
            # The client leaves its folder to the garbage collector, which warns.
            client._temp_dir.cleanup()


@pytest.fixture(scope="module")
def models(http: httpx.Client) -> dict[str, str]:
    """Map each family to the name of one of its models."""
    return {model["pair"]: model["name"] for model in http.get("/models").json()["models"]}


def test_bentoml_client_gets_the_same_responses_as_http(
    client: Any, http: httpx.Client, models: dict[str, str]
) -> None:
    calls: dict[str, tuple[str, dict[str, Any]]] = {
        "image -> labels": ("classify", {"images": [EXAMPLE_PNG]}),
        "text -> labels": ("sequence_predict", {"texts": ["Return a list of words."], "top_k": 1}),
        "text -> language-model": ("generate", {"prompt": "The ", "max_tokens": 4, "seed": 1}),
        "tensors -> image": ("generate", {"seed": 1}),
    }
    if "mnist-cnn" in models.values():
        models = {**models, "image -> labels": "mnist-cnn"}
    num_calls = 0
    for family, (method, body) in calls.items():
        if family in models and (family != "image -> labels" or models[family].startswith("mnist")):
            request = {"model": models[family], **body}
            response = http.post("/" + method.replace("_", "-"), json=request)
            assert response.status_code == 200, response.text
            assert getattr(client, method)(request) == response.json()
            num_calls += 1
    assert num_calls
