"""Checks answers against an OpenAPI document."""

import json
from collections.abc import Mapping
from typing import Any

import jsonschema

JSON_TYPES = {"application/json", "application/problem+json"}
NO_BODY = {"HEAD"}


def validate(instance: Any, schema: Any, document: Any) -> None:
    """Raise jsonschema.ValidationError unless the instance fits a schema of the document."""
    whole = {**schema, "components": document["components"]}
    jsonschema.Draft202012Validator.check_schema(whole)
    jsonschema.Draft202012Validator(whole).validate(instance)


def check_response(  # noqa: PLR0917
    document: Any, method: str, path: str, status: int, headers: Mapping[str, str], body: bytes
) -> None:
    """Fail unless the operation lists this response; `path` is its template."""
    responses = document["paths"][path][method.lower()]["responses"]
    assert str(status) in responses, f"{method} {path} does not list {status}: {body[:200]!r}"
    response = responses[str(status)]
    absent = [name for name, field in response.get("headers", {}).items() if field.get("required")]
    assert not [name for name in absent if name.lower() not in headers]
    if method in NO_BODY:
        assert body == b""
        return
    content_type = headers["content-type"].partition(";")[0]
    assert content_type in response["content"], f"{method} {path} does not list {content_type}"
    if content_type in JSON_TYPES:
        validate(json.loads(body), response["content"][content_type]["schema"], document)
