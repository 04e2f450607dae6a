"""Triton's extensions in the document, and their answers."""

import pytest
from starlette.testclient import TestClient

from tests.service.http.openapi.documented import check_response

READS = [
    "/v2/models/stats",
    "/v2/models/{model}/stats",
    "/v2/models/{model}/versions/{version}/stats",
    "/v2/models/{model}/config",
    "/v2/models/{model}/versions/{version}/config",
]


@pytest.mark.parametrize("path", READS)
def test_answers_are_as_documented_for_every_model(path: str, client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    for model in client.get("/models").json()["models"]:
        response = client.get(path.format(model=model["name"], version="1"))
        assert response.status_code == 200
        check_response(document, "GET", path, 200, response.headers, response.content)


@pytest.mark.parametrize("body", [b"", b"{}", b'{"ready": true}', b'{"ready": null, "repository_name": ""}'])
def test_the_index_is_as_documented(body: bytes, client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    response = client.post("/v2/repository/index", content=body)
    assert response.status_code == 200
    assert len(response.json()) >= 7
    check_response(document, "POST", "/v2/repository/index", 200, response.headers, response.content)
