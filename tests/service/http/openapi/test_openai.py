"""The routes of OpenAI's API in the document: what the service accepts, and what it refuses."""

from typing import Any

import jsonschema
import pytest

from service.errors import EkibenError
from service.http.openapi.openai import OPERATIONS
from service.tasks.openai.chat import EXAMPLE as CHAT
from service.tasks.openai.chat import ChatRequest
from service.tasks.openai.completions import EXAMPLE as COMPLETION
from service.tasks.openai.completions import CompletionRequest
from service.tasks.openai.fields import NEUTRAL, UNUSED, parse_fields

ROUTES: list[tuple[str, Any, Any]] = [
    ("/v1/completions", CompletionRequest, COMPLETION),
    ("/v1/chat/completions", ChatRequest, CHAT),
]
CHANGES: list[dict[str, Any]] = [
    {},
    *({name: {"any": [1]}} for name in sorted(UNUSED)),
    *({name: value} for name, values in NEUTRAL.items() for value in (*values, None, "another")),
    {"temperature": None},
    {"temperature": 3},
    {"stream_options": None},
    {"nothing": 1},
    {"model": 1},
    {"n": 0},
]


@pytest.mark.parametrize(("path", "fields", "example"), ROUTES)
@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_the_schema_accepts_what_the_service_accepts(path: str, fields: Any, example: Any, change: Any) -> None:
    schema = OPERATIONS[path].request["application/json"]
    body = {**example, **change}
    try:
        parse_fields(fields, body)
        accepted = True
    except EkibenError:
        accepted = False
    local = {**schema, "components": {"schemas": schema["$defs"]}}
    assert jsonschema.Draft202012Validator(local).is_valid(body) == accepted


def test_examples_fit() -> None:
    for path, _, example in ROUTES:
        assert OPERATIONS[path].request["application/json"]["example"] == example
