"""Builders of schemas."""

import jsonschema
import pytest

from service.http.openapi.schemas import TEXT, WHOLE, array, inlined, model_schema, nullable, record
from service.tasks.openai.chat import ChatRequest


def is_valid(instance: object, schema: dict[str, object]) -> bool:
    return jsonschema.Draft202012Validator(schema).is_valid(instance)


def test_a_record_has_its_fields_and_no_others() -> None:
    schema = record({"a": TEXT}, {"b": array(WHOLE)})
    assert is_valid({"a": "x"}, schema)
    assert is_valid({"a": "x", "b": [1]}, schema)
    assert not is_valid({"b": []}, schema)
    assert not is_valid({"a": "x", "c": 1}, schema)
    assert is_valid({"a": "x", "c": 1}, record({"a": TEXT}, additionalProperties=True))


@pytest.mark.parametrize("schema", [TEXT, {"enum": ["a"]}, {"anyOf": [TEXT, WHOLE]}, nullable(TEXT)])
def test_nullable_adds_null(schema: dict[str, object]) -> None:
    assert is_valid("a", nullable(schema))
    assert is_valid(None, nullable(schema))
    assert not is_valid([], nullable(schema))


def test_nullable_keeps_the_description_and_adds_null_once() -> None:
    assert nullable({"enum": ["a"], "description": "d"})["description"] == "d"
    once = {"anyOf": [TEXT, {"type": "null"}]}
    assert nullable(once) == once


def test_models_refer_to_components() -> None:
    schema = model_schema(ChatRequest)
    assert {"$ref": "#/components/schemas/StreamOptions"} in schema["properties"]["stream_options"]["anyOf"]
    assert "StreamOptions" in schema["$defs"]


def test_inlined_has_no_references() -> None:
    schema = {"$defs": {"A": {"items": {"$ref": "#/$defs/B"}}, "B": TEXT}, "anyOf": [{"$ref": "#/$defs/A"}, WHOLE]}
    assert inlined(schema) == {"anyOf": [{"items": TEXT}, WHOLE]}
