"""Parameters that operations share."""

import jsonschema
import pytest

from service.http.openapi.operation import PATH_PARAMETERS, TIMEOUT_PARAMETER
from service.http.wire.messages import MAX_TIMEOUT_MS


@pytest.mark.parametrize(
    ("value", "is_valid"), [(1, True), (MAX_TIMEOUT_MS, True), ("", True), (0, False), (MAX_TIMEOUT_MS + 1, False)]
)
def test_the_timeout_has_the_bounds_of_its_header(value: object, is_valid: bool) -> None:
    assert jsonschema.Draft202012Validator(TIMEOUT_PARAMETER["schema"]).is_valid(value) == is_valid


@pytest.mark.parametrize(
    ("name", "is_valid"), [("mnist-cnn", True), ("Mnist", False), ("a" * 65, False), ("a/b", False)]
)
def test_names_of_models_are_those_of_manifests(name: str, is_valid: bool) -> None:
    assert jsonschema.Draft202012Validator(PATH_PARAMETERS["model"]["schema"]).is_valid(name) == is_valid
