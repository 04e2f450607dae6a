"""Defaults of the two kinds of routes."""

from typing import Any

from service.http.route import InferenceRoute, ReadRoute
from service.http.wire.errors import problem_response


async def handle(*_: Any) -> Any: ...


def test_read_routes_accept_get_and_head() -> None:
    assert ReadRoute(name="/x", handle=handle).methods == ("GET", "HEAD")


def test_inference_routes_accept_post() -> None:
    assert InferenceRoute(name="/x", handle=handle).methods == ("POST",)


def test_errors_are_problem_documents_by_default() -> None:
    assert ReadRoute(name="/x", handle=handle).error_format is problem_response
    assert InferenceRoute(name="/x", handle=handle).error_format is problem_response
