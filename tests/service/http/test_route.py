"""Defaults of the two kinds of routes, and the state that they read."""

from typing import Any

from starlette.testclient import TestClient

from service.http.route import InferenceRoute, ReadRoute, ServiceState
from service.http.wire.errors import problem_response


async def handle(*_: Any) -> Any: ...


def test_read_routes_accept_get_and_head() -> None:
    assert ReadRoute(name="/x", handle=handle).methods == ("GET", "HEAD")


def test_inference_routes_accept_post() -> None:
    assert InferenceRoute(name="/x", handle=handle).methods == ("POST",)


def test_errors_are_problem_documents_by_default() -> None:
    assert ReadRoute(name="/x", handle=handle).error_format is problem_response
    assert InferenceRoute(name="/x", handle=handle).error_format is problem_response


def test_the_running_service_has_every_attribute_that_routes_read(client: TestClient) -> None:
    from service.app import running

    service = running()
    assert [name for name in ServiceState.__annotations__ if not hasattr(service, name)] == []
