"""The routes that report on the service answer as the document says, with GET and with HEAD."""

import pytest
from starlette.testclient import TestClient

from service.http.openapi.state import OPERATIONS
from tests.service.http.openapi.documented import check_response


@pytest.mark.parametrize("path", OPERATIONS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_answers_are_as_documented(path: str, method: str, client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    response = client.request(method, path.replace("{asset}", "app.js"))
    assert response.status_code == 200
    check_response(document, method, path, 200, response.headers, response.content)
