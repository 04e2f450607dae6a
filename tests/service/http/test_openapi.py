"""The OpenAPI document describes the routes of generation."""

from typing import Any

import jsonschema
import pytest
from starlette.testclient import TestClient

from service.http.openapi import describe_paths
from service.http.router import find_route
from service.http.routes.oip_generate import REQUEST_SCHEMA
from service.tasks.openai.chat import EXAMPLE as CHAT
from service.tasks.openai.completions import EXAMPLE as COMPLETION


def references(part: Any) -> list[str]:
    if isinstance(part, dict):
        here = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
        return here + [name for value in part.values() for name in references(value)]
    return [name for value in part for name in references(value)] if isinstance(part, list) else []


def test_the_document_has_every_route_and_what_it_refers_to(client: TestClient) -> None:
    document = client.get("/docs.json").json()
    for path, item in describe_paths().items():
        assert document["paths"][path] == item
        route = find_route(path.replace("{model}", "tiny-chat"))
        assert route is not None
        assert {method.upper() for method in item} <= set(route.methods)
    schemas = document["components"]["schemas"]
    assert {name.removeprefix("#/components/schemas/") for name in references(document["paths"])} <= set(schemas)


@pytest.mark.parametrize(
    ("path", "example"),
    [
        ("/v1/completions", COMPLETION),
        ("/v1/chat/completions", CHAT),
        ("/v2/models/{model}/generate", REQUEST_SCHEMA["example"]),
    ],
)
def test_examples_fit_their_schemas(path: str, example: Any) -> None:
    schema = describe_paths()[path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    jsonschema.validate(example, {key: value for key, value in schema.items() if key != "$ref"})
    assert schema["example"] == example


def test_streams_are_described_as_such() -> None:
    content = describe_paths()["/generate/stream"]["post"]["responses"]["200"]["content"]
    assert list(content) == ["text/event-stream"]
