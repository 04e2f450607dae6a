"""Probes of the real application; their failures are in test_front."""

import pytest
from starlette.testclient import TestClient


@pytest.mark.parametrize("path", ["/livez", "/healthz", "/v2/health/live"])
def test_alive(path: str, client: TestClient) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.json()) == (200, {"live": True})
    assert client.head(path).content == b""


@pytest.mark.parametrize("path", ["/readyz", "/v2/health/ready"])
def test_ready(path: str, client: TestClient) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.json()) == (200, {"ready": True})
    assert client.post(path).status_code == 405
