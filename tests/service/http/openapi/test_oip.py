"""The routes of the Open Inference Protocol in the document."""

from typing import Any

import jsonschema
import pytest
from starlette.testclient import TestClient

from service.http.openapi.oip import OPERATIONS, REQUEST
from service.http.routes.oip_generate import REQUEST_SCHEMA

INPUT = {"name": "images", "shape": [1, 2], "datatype": "UINT8", "data": [1, 2]}


@pytest.mark.parametrize(
    ("body", "is_valid"),
    [
        ({"inputs": [INPUT]}, True),
        ({"inputs": [INPUT], "id": "a", "outputs": [{"name": "x", "parameters": {"binary_data": True}}]}, True),
        ({"inputs": [INPUT], "parameters": {"timeout": 1000, "binary_data_output": True}}, True),
        ({"inputs": [INPUT], "parameters": None, "outputs": None}, True),
        ({"inputs": []}, False),
        ({"inputs": [{**INPUT, "datatype": "FP8"}]}, False),
        ({"inputs": [{**INPUT, "shape": [-1]}]}, False),
        ({"inputs": [{**INPUT, "parameters": {"binary_data_size": "1"}}]}, False),
        ({"inputs": [INPUT], "parameters": {"timeout": -1}}, False),
        ({"inputs": [INPUT], "output": []}, False),
    ],
)
def test_the_schema_of_a_request(body: Any, is_valid: bool) -> None:
    assert jsonschema.Draft202012Validator(REQUEST).is_valid(body) == is_valid


@pytest.mark.parametrize(
    ("parameters", "is_valid"),
    [
        ({"max_tokens": 4, "seed": 1, "stop": "a", "details": True, "stream": False}, True),
        ({"stop": ["a", "b"]}, True),
        (None, True),
        ({"max_tokens": 0}, False),
        ({"model": "a"}, False),
        ({"prompt": "a"}, False),
        ({"exclude_input_in_output": False}, False),
    ],
)
def test_parameters_of_generate_are_the_fields_of_the_native_route(parameters: Any, is_valid: bool) -> None:
    schema = OPERATIONS["/v2/models/{model}/generate"].request["application/json"]
    body = {**REQUEST_SCHEMA["example"], "parameters": parameters}
    assert jsonschema.Draft202012Validator(schema).is_valid(body) == is_valid


def image(**changes: Any) -> dict[str, Any]:
    return {"name": "images", "shape": [1, 4, 4], "datatype": "UINT8", "data": [0] * 16, **changes}


CHANGES: list[dict[str, Any]] = [
    *({"parameters": {name: value}} for name in ("priority", "sequence_id") for value in (0, 1, "", None, False, [])),
    *({"parameters": {name: value}} for name in ("sequence_start", "sequence_end") for value in (False, True, 0, None)),
    *({"parameters": {"content_type": value}} for value in ("np", "pd", "str", "base64", None)),
    *({"parameters": {"headers": value}} for value in ({}, {"a": 1}, [], None)),
    *({"parameters": {"timeout": value}} for value in (0, 10**7, -1, "1", None)),
    *({"parameters": value} for value in (None, {}, [], {"shared_memory_region": "a"})),
    *({"outputs": value} for value in (None, [], {}, [{"name": "probabilities", "parameters": None}])),
    *({"outputs": [{"name": "probabilities", "parameters": {"classification": k}}]} for k in (0, 2, -1, "1", None)),
    *({"outputs": [{"name": "probabilities", "parameters": {"binary_data": v}}]} for v in (True, 1, None)),
    *({"inputs": [image(parameters=value)]} for value in (None, {}, {"content_type": "np"}, {"priority": 0})),
    *({"id": value} for value in ("a", None, 1)),
    *({"model_name": value} for value in ("tiny-images", None, 1)),
    *({"model_version": value} for value in ("1", "", None, 1)),
    {"nothing": None},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_the_schema_accepts_what_the_route_accepts(change: dict[str, Any], client: TestClient) -> None:
    body = {"inputs": [image()], **change}
    response = client.post("/v2/models/tiny-images/infer", json=body)
    assert response.status_code in {200, 422}
    assert jsonschema.Draft202012Validator(REQUEST).is_valid(body) == (response.status_code == 200), response.text
