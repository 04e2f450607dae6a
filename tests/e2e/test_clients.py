"""BentoML's own client knows the endpoints without being told."""

import warnings
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from service.tasks.classify import A_SEVEN


@pytest.fixture(scope="module")
def client(server: str) -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # BentoML uses what its dependencies call deprecated
        import bentoml

        with bentoml.SyncHTTPClient(server) as client:
            yield client
            client._temp_dir.cleanup()  # it leaves this to the garbage collector, which warns


@pytest.fixture(scope="module")
def served(http: httpx.Client) -> dict[str, str]:
    """family -> name of a model"""
    return {model["family"]: model["name"] for model in http.get("/models").json()["models"]}


def test_the_three_endpoints_answer_bentos_client(client: Any, http: httpx.Client, served: dict[str, str]) -> None:
    calls: dict[str, tuple[str, dict[str, Any]]] = {
        "image-classifier": ("classify", {"images": [A_SEVEN]}),
        "text-classifier": ("sequence_predict", {"texts": ["Return a list of words."], "top_k": 1}),
        "language-model": ("generate", {"prompt": "The ", "max_tokens": 4, "seed": 1}),
        "image-generator": ("generate", {"seed": 1}),
    }
    if "mnist-cnn" in served.values():
        served = {**served, "image-classifier": "mnist-cnn"}
    asked = 0
    for family, (method, body) in calls.items():
        if family in served and (family != "image-classifier" or served[family].startswith("mnist")):
            request = {"model": served[family], **body}
            by_hand = http.post("/" + method.replace("_", "-"), json=request)
            assert by_hand.status_code == 200, by_hand.text
            assert getattr(client, method)(request) == by_hand.json()
            asked += 1
    assert asked
