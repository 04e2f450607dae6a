"""What the OpenAPI document shows of each READY model: its schemas as components, an example for each of its routes.

Invariant: an example is a request that the model answers.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from service.contract.heads import LanguageModelHead
from service.http.openapi.schemas import Schema, inlined
from service.http.wire.oip_tensors import DATATYPES
from service.manifest import Manifest
from service.tasks.body import JsonObject
from service.tasks.description import describe_requests, example_tensors
from service.tasks.model_lookup import ENDPOINTS

PROMPT = "The "


def model_components(manifests: Sequence[Manifest]) -> Schema:
    """Return the schemas of the items and predictions of POST /predict, named by model."""
    components: Schema = {}
    for manifest in manifests:
        described = describe_requests(manifest)
        if "payload" in described:
            [(field, items)] = described["payload"].items()
            components[f"{manifest.name}.{field}"] = items
            components[f"{manifest.name}.prediction"] = inlined(described["prediction"])
    return components


def request_examples(manifests: Sequence[Manifest]) -> dict[str, Schema]:
    """Return the examples of each route by model."""
    examples: dict[str, Schema] = defaultdict(dict)
    for manifest in manifests:
        for route, body in _bodies(manifest).items():
            examples[route][manifest.name] = {"value": body}
    return examples


def _bodies(manifest: Manifest) -> dict[str, JsonObject]:
    """Return a body for each route that answers the model."""
    tensors = example_tensors(manifest)
    inputs = [] if tensors is None else [_tensor(manifest, name, tensors[name]) for name in tensors]
    bodies: dict[str, JsonObject] = {"/v2/models/{model}/infer": {"inputs": inputs}} if inputs else {}
    if isinstance(manifest.head, LanguageModelHead):
        prompt: JsonObject = {"model": manifest.name, "prompt": PROMPT, "max_tokens": 8, "seed": 1}
        bodies |= dict.fromkeys(("/generate", "/generate/stream", "/v1/completions"), prompt)
        triton: JsonObject = {"text_input": PROMPT, "parameters": {"max_tokens": 8, "seed": 1}}
        bodies |= dict.fromkeys(("/v2/models/{model}/generate", "/v2/models/{model}/generate_stream"), triton)
        if manifest.head.chat_template is not None:
            messages = [{"role": "user", "content": "Hello"}]
            bodies["/v1/chat/completions"] = {"model": manifest.name, "messages": messages, "max_tokens": 8, "seed": 1}
        return bodies
    described = describe_requests(manifest)
    if described["example"] is not None:
        bodies |= dict.fromkeys(described["routes"], described["example"])
    if manifest.task == "generate":
        bodies[ENDPOINTS["generate"]] = {"model": manifest.name, "count": 1, "seed": 1}
    return bodies


def _tensor(manifest: Manifest, name: str, data: Any) -> JsonObject:
    [spec] = [each for each in manifest.inputs if each.name == name]
    return {"name": name, "shape": list(np.shape(data)), "datatype": DATATYPES[spec.dtype], "data": data}
