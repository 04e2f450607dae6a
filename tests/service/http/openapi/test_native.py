"""The native routes in the document."""

from typing import Any

import jsonschema
import pytest
from starlette.testclient import TestClient

from service.http.openapi.native import OPERATIONS, STATES, SUMMARY
from service.http.openapi.schemas import record
from service.tasks import TASKS
from service.tasks.model_lookup import ENDPOINTS


@pytest.mark.parametrize("task", ENDPOINTS)
def test_the_schema_of_a_request_is_that_of_the_model_that_validates_it(task: Any) -> None:
    schema = OPERATIONS[ENDPOINTS[task]].request["application/json"]
    accepted = TASKS[task].request.model_json_schema()
    assert set(schema["properties"]) == set(accepted["properties"])
    assert (schema["additionalProperties"], schema["required"]) == (False, ["model"])
    jsonschema.validate(schema["example"], {key: value for key, value in schema.items() if key != "$defs"})


def test_the_summary_of_a_model_has_exactly_these_fields(client: TestClient) -> None:
    for model in client.get("/models").json()["models"]:
        jsonschema.validate(model, record(SUMMARY))


def test_the_states_are_those_of_versions() -> None:
    from typing import get_args

    from service.engine.repository.version import State

    assert get_args(State) == STATES
