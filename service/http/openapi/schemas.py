"""Builders of JSON schemas (draft 2020-12, the dialect of OpenAPI 3.1).

Invariant: a schema of a pydantic model is what that model accepts; the models that it refers to are components.
"""

from copy import deepcopy
from typing import Any

from pydantic import BaseModel

Schema = dict[str, Any]
COMPONENT = "#/components/schemas/{model}"
TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
FLAG: Schema = {"type": "boolean"}


def record(required: dict[str, Schema], optional: dict[str, Schema] | None = None, **keywords: Any) -> Schema:
    """Return the schema of an object with these fields and no others; `keywords` are added, or replace some."""
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
        **keywords,
    }


def array(items: Schema, **keywords: Any) -> Schema:
    return {"type": "array", "items": items, **keywords}


def nullable(schema: Schema) -> Schema:
    """Return a schema that null fits too; it keeps its description."""
    if {"type": "null"} in schema.get("anyOf", []):
        return schema
    kinds = schema.get("type")
    if isinstance(kinds, str) and "enum" not in schema:
        return {**schema, "type": [kinds, "null"]}
    inner = {key: value for key, value in schema.items() if key not in {"description", "default"}}
    outer = {key: value for key, value in schema.items() if key in {"description", "default"}}
    return {"anyOf": [inner, {"type": "null"}], **outer}


def model_schema(model: type[BaseModel]) -> Schema:
    """Return the schema of what a model accepts, with the models that it refers to under `$defs`."""
    return model.model_json_schema(ref_template=COMPONENT)


def inlined(schema: Schema) -> Schema:
    """Return a schema with the definitions of its `$defs` in place of the references to them."""
    definitions = schema.get("$defs", {})

    def resolve(part: Any) -> Any:
        if isinstance(part, list):
            return [resolve(item) for item in part]
        if not isinstance(part, dict):
            return part
        name = str(part.get("$ref", "")).removeprefix("#/$defs/")
        return resolve(definitions[name]) if name in definitions else {k: resolve(v) for k, v in part.items()}

    resolved: Schema = resolve({key: value for key, value in schema.items() if key != "$defs"})
    return deepcopy(resolved)
