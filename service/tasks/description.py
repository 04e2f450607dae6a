"""Describes the requests that a model answers: its routes, the JSON schemas of its items and predictions, an example.

Invariant: the example is a valid request.
"""

import base64
from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np

from service.contract.heads import (
    EmbeddingHead,
    LabelsHead,
    LanguageModelHead,
    MultilabelHead,
    TokenLabelsHead,
    ValuesHead,
)
from service.contract.readers import CategoryColumn, SeriesReader
from service.contract.tensors import TensorSpec
from service.manifest import Manifest, ValueRange
from service.tasks.body import JsonObject
from service.tasks.codecs.images import encode_png
from service.tasks.heads import HEADS
from service.tasks.heads.predictions import LabelPrediction
from service.tasks.model_lookup import ENDPOINTS
from service.tasks.predict import accepted_fields
from service.tasks.readers import READERS
from service.tasks.readers.image import image_reader
from service.tasks.readers.table import number_range
from service.tasks.readers.tensors import describe

# Of the tensors in an example: a longer one would fill a page with zeros.
MAX_EXAMPLE_ENTRIES = 1 << 12


def describe_requests(manifest: Manifest) -> JsonObject:
    """Return the routes of a model and what POST /predict takes and answers; of a language model the route alone."""
    if isinstance(manifest.head, LanguageModelHead):
        return {"routes": [ENDPOINTS["generate"]]}
    reader = READERS[manifest.reader.kind]
    item, example = ITEMS[manifest.reader.kind](manifest)
    routes = dict.fromkeys((ENDPOINTS[manifest.task], ENDPOINTS["predict"]))
    return {
        "routes": list(routes),
        "fields": list(accepted_fields(manifest)),
        "payload": {reader.field: item},
        "prediction": prediction_schema(manifest),
        "example": None if example is None else {"model": manifest.name, reader.field: example},
    }


def prediction_schema(manifest: Manifest) -> JsonObject:
    """Return the JSON schema of one prediction, with the names of the model."""
    reader, head = manifest.reader, manifest.head
    model = HEADS[head.kind].prediction
    has_steps = head.kind == "token-labels" and reader.kind == "series"
    if has_steps:
        model = LabelPrediction
    schema = model.model_json_schema()
    properties = schema["properties"]
    given = {
        "tokens": reader.kind == "text",
        "steps": has_steps,
        "state": isinstance(reader, SeriesReader) and reader.state is not None,
    }
    for name in [name for name in properties if name not in schema["required"]]:
        if given[name]:
            schema["required"].append(name)
            properties[name] = properties[name]["anyOf"][0] | {"description": properties[name]["description"]}
        else:
            del properties[name]
    match head:
        case LabelsHead(labels=labels) | MultilabelHead(labels=labels) | TokenLabelsHead(labels=labels):
            for part in (schema, *schema["$defs"].values()):
                if "label" in part["properties"]:
                    part["properties"]["label"] = {"enum": list(labels)}
        case ValuesHead(names=names, units=units):
            numbers = {name: {"type": "number", "description": unit} for name, unit in zip(names, units, strict=True)}
            properties["values"] = {"type": "object", "properties": numbers, "required": list(names)}
        case EmbeddingHead(size=size):
            properties["embedding"] |= {"minItems": size, "maxItems": size}
        case _:
            pass
    return schema


def _items(item: JsonObject, manifest: Manifest) -> JsonObject:
    return {"type": "array", "minItems": 1, "maxItems": manifest.limits.max_items, "items": item}


def _describe_images(manifest: Manifest) -> tuple[JsonObject, Any]:
    reader, limits = image_reader(manifest), manifest.limits
    height, width = (
        size or limits.axis_range(axis).min for axis, size in (("height", reader.height), ("width", reader.width))
    )
    pixels = np.zeros((height, width) if reader.mode == "L" else (height, width, 3), np.uint8)
    if reader.resize is not None:
        taken = "of any size"
    else:
        taken = " x ".join(
            str(size if size is not None else limits.axis_range(axis))
            for axis, size in (("height", reader.height), ("width", reader.width))
        )
    item = {
        "description": f"an image, {taken} (height x width), as a base64 PNG or JPEG or as nested lists of pixels",
        "anyOf": [{"type": "string"}, {"type": "array"}],
    }
    return _items(item, manifest), [base64.b64encode(encode_png(pixels)).decode()]


def _describe_texts(manifest: Manifest) -> tuple[JsonObject, Any]:
    item = {"type": "string", "minLength": 1, "description": f"a text of at most {manifest.limits.max_steps} tokens"}
    return _items(item, manifest), ["a text"]


def _describe_series(manifest: Manifest) -> tuple[JsonObject, Any]:
    reader = manifest.reader
    assert isinstance(reader, SeriesReader)
    allowed = manifest.value_range("series")
    number = {"type": "number", "minimum": allowed.low, "maximum": allowed.high}
    step = {"type": "array", "minItems": reader.channels, "maxItems": reader.channels, "items": number}
    series = {"type": "array", "minItems": 1, "maxItems": manifest.limits.max_steps, "items": step}
    return _items(series, manifest), [[[_nearest_to_zero(allowed)] * reader.channels]]


def _describe_rows(manifest: Manifest) -> tuple[JsonObject, Any]:
    properties: dict[str, JsonObject] = {}
    row: JsonObject = {}
    for column in manifest.reader.columns:  # type: ignore[union-attr]
        if isinstance(column, CategoryColumn):
            properties[column.name], row[column.name] = {"enum": list(column.values)}, column.values[0]
        else:
            allowed = number_range(column, manifest)
            properties[column.name] = {"type": "number", "minimum": allowed.low, "maximum": allowed.high}
            row[column.name] = _nearest_to_zero(allowed)
    item = {"type": "object", "properties": properties, "required": list(row), "additionalProperties": False}
    return _items(item, manifest), [row]


def example_tensors(manifest: Manifest) -> JsonObject | None:
    """Return the smallest inputs that a model takes, as nested lists by name; None if they would fill a page."""
    shapes = {spec.name: _smallest_shape(spec, manifest) for spec in manifest.inputs}
    if sum(map(prod, shapes.values())) > MAX_EXAMPLE_ENTRIES:
        return None
    return {spec.name: _example_tensor(spec, shapes[spec.name], manifest) for spec in manifest.inputs}


def _describe_tensors(manifest: Manifest) -> tuple[JsonObject, Any]:
    properties = {spec.name: {"description": _describe_tensor(spec, manifest)} for spec in manifest.inputs}
    payload = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return payload, example_tensors(manifest)


def _describe_tensor(spec: TensorSpec, manifest: Manifest) -> str:
    ranges = [f", {axis} {manifest.limits.axes[axis]}" for axis in spec.shape if axis in manifest.limits.axes]
    return f"nested lists: {describe(spec)}{''.join(ranges)}"


def _smallest_shape(spec: TensorSpec, manifest: Manifest) -> tuple[int, ...]:
    smallest = {
        axis: 1 if axis == "batch" else manifest.limits.axis_range(axis).min
        for axis in spec.shape
        if isinstance(axis, str)
    }
    return tuple(axis if isinstance(axis, int) else smallest[axis] for axis in spec.shape)


def _example_tensor(spec: TensorSpec, shape: tuple[int, ...], manifest: Manifest) -> Any:
    match spec.dtype:
        case "string":
            return np.full(shape, "a", object).tolist()
        case "float16" | "float32" | "float64":
            return np.full(shape, _nearest_to_zero(manifest.value_range(spec.name))).tolist()
        case "bool":
            return np.zeros(shape, np.bool_).tolist()
        case _:
            return np.full(shape, int(spec.name == "lengths")).tolist()


def _nearest_to_zero(allowed: ValueRange) -> float:
    return min(max(0.0, allowed.low), allowed.high)


ITEMS: Mapping[str, Callable[[Manifest], tuple[JsonObject, Any]]] = {
    "image": _describe_images,
    "series": _describe_series,
    "text": _describe_texts,
    "table": _describe_rows,
    "tensors": _describe_tensors,
}
