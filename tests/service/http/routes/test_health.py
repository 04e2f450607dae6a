"""Liveness and readiness of the application; failing readiness is tested with the router."""

import pytest
from starlette.testclient import TestClient


@pytest.mark.parametrize("path", ["/livez", "/healthz", "/v2/health/live"])
def test_a_running_service_is_live(path: str, client: TestClient) -> None:
    response = client.get(path)
    assert (response.status_code, response.json()) == (200, {"live": True})
    assert client.head(path).content == b""


@pytest.mark.parametrize("path", ["/readyz", "/v2/health/ready"])
def test_a_service_with_ready_models_is_ready(path: str, client: TestClient) -> None:
    response = client.get(path)
    assert (response.status_code, response.json()) == (200, {"ready": True})
    assert client.post(path).status_code == 405
