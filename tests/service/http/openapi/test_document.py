"""The document is valid, and describes what is served: every route, its model's requests, its answers."""

import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.testclient import TestClient

from service.http.openapi.document import OPERATIONS, VERSION, build_document, is_described, served_paths
from service.http.route import ReadRoute
from service.http.router import FRAMEWORK, find_route, served_routes
from service.http.routes import native
from tests.service.event_streams import read_events
from tests.service.http.openapi.documented import check_response, validate

ROOT = Path(__file__).parents[4]
ROUTES = {route.name: route for route in served_routes()}
UNDESCRIBED = {"/v2/...", "/v1/...", "/..."}


@pytest.fixture(scope="module")
def document(client: TestClient) -> Any:
    return client.get("/openapi.json").json()


def test_the_document_is_valid(document: Any) -> None:
    OpenAPIV31SpecValidator(document).validate()
    OpenAPIV31SpecValidator(build_document(served_routes())).validate()


def test_every_route_is_described_and_nothing_else() -> None:
    described = {name for name, route in ROUTES.items() if is_described(route)}
    assert described == set(OPERATIONS), "add the route to a module of service/http/openapi"
    assert set(ROUTES) - described == UNDESCRIBED


def test_a_route_without_a_description_fails() -> None:
    route = ReadRoute(name="/new", handle=native.MODEL.handle)
    with pytest.raises(KeyError, match="/new"):
        build_document([route])


def test_every_path_is_that_of_its_route(document: Any) -> None:
    paths = {path: name for name, route in ROUTES.items() if is_described(route) for path in served_paths(name)}
    assert set(document["paths"]) == set(paths)
    for path, name in paths.items():
        route = find_route(path.replace("{model}", "tiny-chat").replace("{version}", "1")) or FRAMEWORK
        assert route.name == name
        assert set(document["paths"][path]) == {method.lower() for method in route.methods}


def test_operations_have_names_of_their_own(document: Any) -> None:
    names = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
    assert len(set(names)) == len(names)


def test_every_operation_says_which_scope_a_key_needs(document: Any) -> None:
    for path, item in document["paths"].items():
        for operation in item.values():
            scope = ROUTES[path.replace("/versions/{version}", "")].scope
            alternatives = [] if scope is None else [{"bearer": [scope]}, {"key": [scope]}, {}]
            assert operation["security"] == alternatives
            assert ("401" in operation["responses"]) == (scope is not None)


def test_every_reference_leads_to_a_component(document: Any) -> None:
    def references(part: Any) -> list[str]:
        if isinstance(part, dict):
            here = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
            return here + [name for value in part.values() for name in references(value)]
        return [name for value in part for name in references(value)] if isinstance(part, list) else []

    found = {name.removeprefix("#/components/schemas/") for name in references(document)}
    assert (
        {"Problem", "OipError", "OpenAIError", "StreamOptions", "Ranked"}
        <= found
        <= set(document["components"]["schemas"])
    )


def test_examples_of_models_fit_their_schemas_and_are_answered(document: Any, client: TestClient) -> None:
    num_examples = 0
    for path, item in document["paths"].items():
        content = item.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json", {})
        for name, example in content.get("examples", {}).items():
            validate(example["value"], content["schema"], document)
            version = client.get(f"/models/{name}").json()["version"]
            response = client.post(path.format(model=name, version=version), json=example["value"])
            assert response.status_code == 200, f"{path} {name}: {response.text}"
            check_response(document, "POST", path, 200, response.headers, response.content)
            num_examples += 1
    assert num_examples >= 30


def test_the_schema_of_each_model_fits_its_example(document: Any, client: TestClient) -> None:
    schemas = document["components"]["schemas"]
    examples = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["examples"]
    assert {"tiny-images", "tiny-series", "tiny-tags", "tiny-texts", "tiny-pictures"} == set(examples)
    for name, example in examples.items():
        [field] = [key.removeprefix(f"{name}.") for key in schemas if key.startswith(name) and "prediction" not in key]
        validate(example["value"][field], schemas[f"{name}.{field}"], document)
        [prediction, *_] = client.post("/predict", json=example["value"]).json()["predictions"]
        validate(prediction, schemas[f"{name}.prediction"], document)


def test_streams_binary_answers_and_texts_are_described_as_such(document: Any) -> None:
    def kinds(path: str, method: str = "post") -> list[str]:
        return list(document["paths"][path][method]["responses"]["200"]["content"])

    assert kinds("/generate/stream") == ["text/event-stream"]
    assert kinds("/v1/completions") == ["application/json", "text/event-stream"]
    assert kinds("/v2/models/{model}/infer") == ["application/json", "application/octet-stream"]
    assert kinds("/generate") == ["application/json", "image/png"]
    assert kinds("/metrics", "get") == ["text/plain", "application/openmetrics-text"]
    assert kinds("/", "get") == ["text/html"]


PROMPT = {"model": "tiny-chat", "max_tokens": 9, "seed": 1}
CHAT = {"messages": [{"role": "user", "content": "a"}], "logprobs": True, "top_logprobs": 2}
USAGE = {"stream": True, "stream_options": {"include_usage": True}}
TRITON = {"text_input": "a", "parameters": {"max_tokens": 9, "details": True, "logprobs": True}}
STREAMS: list[tuple[str, dict[str, Any], dict[str, str]]] = [
    ("/generate/stream", {**PROMPT, "prompt": ["a", "b"], "logprobs": True}, {"": "StreamEvent", "end": "StreamEnd"}),
    ("/generate/stream", {**PROMPT, "prompt": "a"}, {"": "StreamEvent", "end": "StreamEnd"}),
    ("/v1/completions", {**PROMPT, **USAGE, "prompt": "a", "logprobs": 2, "n": 2}, {"": "CompletionChunk"}),
    ("/v1/completions", {**PROMPT, "prompt": "a", "stream": True}, {"": "CompletionChunk"}),
    ("/v1/chat/completions", {**PROMPT, **USAGE, **CHAT}, {"": "ChatChunk"}),
    ("/v2/models/tiny-chat/generate_stream", TRITON, {"": "GeneratedText"}),
    ("/v2/models/tiny-chat/generate_stream", {"text_input": "a"}, {"": "GeneratedText"}),
]


@pytest.mark.parametrize(("path", "body", "schemas"), STREAMS)
def test_events_fit_the_components_that_the_streams_name(
    path: str, body: Any, schemas: dict[str, str], document: Any, client: TestClient
) -> None:
    response = client.post(path, json=body)
    assert response.status_code == 200
    events = read_events(response.content.replace(b"data: [DONE]\n\n", b""))
    assert len(events) >= 2
    for kind, event in events:
        validate(event, {"$ref": f"#/components/schemas/{schemas[kind]}"}, document)
        assert schemas[kind] in json.dumps(document["paths"][path.replace("tiny-chat", "{model}")])


def test_the_document_that_bentoml_packs_is_the_same_without_models() -> None:
    from service.app import Ekiben

    packed = yaml.safe_load(yaml.dump(Ekiben.openapi_spec))
    assert packed == json.loads(json.dumps(build_document(served_routes())))


def test_the_version_is_that_of_the_project() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION


@pytest.mark.parametrize(
    ("body", "is_valid"),
    [
        ({"texts": ["a"]}, True),
        ({"texts": ["a"], "images": None, "sequences": None}, True),
        ({"texts": ["a"], "sequences": [[[0.0]]]}, False),
        ({"texts": None}, False),
        ({}, False),
    ],
)
def test_predict_takes_the_field_of_one_reader_and_null_is_absent(body: dict[str, Any], is_valid: bool) -> None:
    document = build_document(served_routes())
    content = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    schema = {**content["schema"], "components": document["components"]}
    assert jsonschema.Draft202012Validator(schema).is_valid({"model": "m", **body}) is is_valid
