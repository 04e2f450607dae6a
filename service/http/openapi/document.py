"""The OpenAPI document of the service, made from the routes that it serves and the models that are READY.

Invariant: every route that the router answers has its operations, under the methods, the scope and the error format
that its registry entry holds. A route that no module here describes is a KeyError.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from itertools import chain

from service.http.openapi import native, oip, openai, state, triton
from service.http.openapi.errors import FORMATS, describe_errors
from service.http.openapi.examples import model_components, request_examples
from service.http.openapi.operation import PATH_PARAMETERS, TIMEOUT_PARAMETER, Operation
from service.http.openapi.schemas import TEXT, Schema, model_schema
from service.http.route import InferenceRoute, Route, Scope
from service.http.wire.messages import JSON
from service.manifest import CARD, Manifest

OPERATIONS: Mapping[str, Operation] = {
    **native.OPERATIONS,
    **oip.OPERATIONS,
    **triton.OPERATIONS,
    **openai.OPERATIONS,
    **state.OPERATIONS,
}
VERSION = "0.1.0"  # of the project
TAGS = {
    native.TAG: "Inference on images, texts, series, tables and tensors, generation, and the models.",
    oip.TAG: "Version 2 of the protocol that Triton, KServe and MLServer speak.",
    openai.TAG: "Completions, chats and language models.",
    state.TAG: "Probes, metrics and descriptions.",
}
SECURITY_SCHEMES: Schema = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "a key of the service, if it has keys"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "the same key"},
}
REQUEST_ID_HEADER: Schema = {
    "X-Request-Id": {"description": "the id that the request came with, or a new one", "schema": TEXT}
}
PLACEHOLDER = re.compile(r"{(\w+)}")


def build_document(routes: Iterable[Route], manifests: Sequence[Manifest] = ()) -> Schema:
    """Return the document; `manifests` are those of the models that are READY, whose requests are its examples."""
    schemas: Schema = {form.name: form.schema for form in FORMATS.values()}
    examples = request_examples(manifests)
    paths: Schema = {}
    for route in routes:
        if not is_described(route):
            continue
        schemas |= deepcopy(dict(OPERATIONS[route.name].events))
        for path in served_paths(route.name):
            paths[path] = {
                method.lower(): _describe(route, path, method, manifests, examples.get(route.name))
                for method in route.methods
            }
    for schema in [*_definitions(paths), *_definitions(list(schemas.values()))]:
        schemas |= schema.pop("$defs")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Ekiben",
            "version": VERSION,
            "description": "Trained models with proof that what is served is what was trained.",
        },
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": {**dict(sorted(schemas.items())), **model_components(manifests)},
            "securitySchemes": SECURITY_SCHEMES,
        },
    }


def is_described(route: Route) -> bool:
    """Whether a route is one of the document: not the one that refuses other paths, nor one with a slash added."""
    return not route.name.endswith("...") and (route.name == "/" or not route.name.endswith("/"))


def served_paths(name: str) -> list[str]:
    """Return the paths of a route: those of a model of the Open Inference Protocol may name the version too."""
    prefix = "/v2/models/{model}"
    if not name.startswith(prefix):
        return [name]
    return [name, f"{prefix}/versions/{{version}}{name.removeprefix(prefix)}"]


def _describe(route: Route, path: str, method: str, manifests: Sequence[Manifest], examples: Schema | None) -> Schema:
    operation = OPERATIONS[route.name]
    with_body = method != "HEAD"
    described: Schema = {
        "operationId": f"{method.lower()}{re.sub(r'[^a-z0-9]+', '_', path.lower()).rstrip('_') or '_root'}",
        "tags": [operation.tag],
        "summary": operation.summary if with_body else f"The headers of GET {path}.",
        "description": operation.description or operation.summary,
        "parameters": list(_parameters(route, path, operation, manifests)),
        "responses": {
            **_answers(operation, with_body=with_body),
            **describe_errors(route, operation.errors, with_body=with_body),
        },
        "security": _security(route.scope),
    }
    if operation.request:
        content: Schema = {kind: {"schema": deepcopy(schema)} for kind, schema in operation.request.items()}
        if examples:
            content[JSON]["examples"] = examples
        described["requestBody"] = {"required": operation.needs_body, "content": content}
    return described


def _answers(operation: Operation, *, with_body: bool) -> Schema:
    entity_tag = {"ETag": {"required": True, "schema": TEXT}} if operation.has_entity_tag else {}
    headers = {**REQUEST_ID_HEADER, **operation.headers, **entity_tag}
    answer: Schema = {"description": operation.meaning, "headers": headers}
    if with_body:
        answer["content"] = {
            kind: {} if schema is None else {"schema": deepcopy(schema)} for kind, schema in operation.answer.items()
        }
    not_modified = {"304": {"description": "The client has it already.", "headers": entity_tag}} if entity_tag else {}
    return {"200": answer, **not_modified}


def _parameters(route: Route, path: str, operation: Operation, manifests: Sequence[Manifest]) -> Iterator[Schema]:
    for name in PLACEHOLDER.findall(path):
        parameter = {"name": name, "in": "path", "required": True, **PATH_PARAMETERS[name]}
        known = {each.name: {"value": value} for each in manifests if (value := _value_in_path(name, path, each))}
        yield {**parameter, "examples": known} if known else parameter
    if operation.query is not None:
        for name, schema in model_schema(operation.query)["properties"].items():
            yield {"name": name, "in": "query", "schema": schema}
    if isinstance(route, InferenceRoute):
        yield TIMEOUT_PARAMETER
    yield from operation.parameters
    if operation.has_entity_tag:
        yield {"name": "If-None-Match", "in": "header", "schema": TEXT}


def _value_in_path(name: str, path: str, manifest: Manifest) -> str | None:
    """Return what stands for a part of the path in a request that this model answers; None if there is none."""
    plots = [file for file in manifest.files if file.endswith(".png")]
    if "/card" in path and (CARD not in manifest.files or ("{plot}" in path and not plots)):
        return None
    return {"model": manifest.name, "version": manifest.version, "plot": next(iter(plots), None)}.get(name)


def _security(scope: Scope | None) -> list[Schema]:
    """Return the alternatives: a key of this scope in either place, or none if the service has no keys."""
    return [] if scope is None else [{"bearer": [scope]}, {"key": [scope]}, {}]


def _definitions(part: object) -> Iterator[Schema]:
    """Yield every schema within that has definitions of its own."""
    if isinstance(part, dict):
        if "$defs" in part:
            yield part
        yield from chain.from_iterable(map(_definitions, list(part.values())))
    elif isinstance(part, list):
        yield from chain.from_iterable(map(_definitions, part))
