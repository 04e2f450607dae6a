"""BentoML's clients, which find the endpoints in `/docs.json`, on both hosts: answers are those of the routes."""

import asyncio
import warnings
from typing import Any

import httpx
import pytest

from tests.service.requests import request_body

with warnings.catch_warnings():
    # BentoML calls deprecated functions of its dependencies.
    warnings.simplefilter("ignore")
    import bentoml
    from bentoml.exceptions import BentoMLException

# BentoML's clients leave a folder and a connection to the garbage collector, which warns.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
CALLS = [
    ("classify", "image-classifier"),
    ("sequence_predict", "series-classifier"),
    ("sequence_predict", "series-tagger"),
    ("sequence_predict", "text-classifier"),
    ("generate", "language-model"),
    ("generate", "image-generator"),
    ("predict", "image-classifier"),
    ("predict", "series-tagger"),
    ("predict", "text-classifier"),
]


@pytest.fixture
def url(address: str) -> str:
    return f"http://{address}"


def answer(url: str, method: str, body: dict[str, Any]) -> Any:
    response = httpx.post(f"{url}/{method.replace('_', '-')}", json=body, timeout=30)
    assert response.status_code == 200, response.text
    return response.json()


def test_every_endpoint_is_called() -> None:
    from service.tasks import TASKS

    assert {method.replace("_", "-") for method, _ in CALLS} == set(TASKS)


def test_blocking_client(url: str) -> None:
    with bentoml.SyncHTTPClient(url) as client:
        assert client.is_ready()
        for method, family in CALLS:
            body = request_body(family)
            assert getattr(client, method)(body) == answer(url, method, body), (method, family)
        with pytest.raises(BentoMLException) as caught:
            client.classify({"model": "nobody", "images": []})
        assert "unknown-model" in str(caught.value)
        client._temp_dir.cleanup()


def test_asynchronous_client(url: str) -> None:
    async def call_all() -> list[Any]:
        async with bentoml.AsyncHTTPClient(url) as client:
            assert await client.is_ready()
            calls = [getattr(client, method)(request_body(family)) for method, family in CALLS]
            answers = await asyncio.gather(*calls)
            client._temp_dir.cleanup()
            return answers

    for (method, family), found in zip(CALLS, asyncio.run(call_all()), strict=True):
        assert found == answer(url, method, request_body(family)), (method, family)
