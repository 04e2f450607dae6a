"""Liveness and readiness of the application, and the reason why it is not ready."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.errors import EkibenError
from service.http.routes.health import ROUTES


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


@pytest.mark.parametrize("route", [route for route in ROUTES if "/ready" in route.name])
@pytest.mark.parametrize("draining", [True, False])
def test_a_service_that_is_not_ready_says_what_it_waits_for(route: Any, draining: bool) -> None:
    repository = SimpleNamespace(not_ready_reason=lambda: "tiny-images is VERIFYING")
    with pytest.raises(EkibenError) as caught:
        asyncio.run(route.handle(SimpleNamespace(draining=draining, repository=repository), None))
    assert caught.value.slug == "not-ready"
    assert caught.value.detail == ("the service is shutting down" if draining else "tiny-images is VERIFYING")
