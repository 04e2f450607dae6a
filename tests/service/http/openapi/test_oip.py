"""The routes of the Open Inference Protocol in the document."""

from typing import Any

import jsonschema
import pytest

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
