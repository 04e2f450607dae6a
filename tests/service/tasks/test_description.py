"""The description of a model names its routes and fields, and its example is a valid request."""

import asyncio
from typing import Any

import pytest

from service.engine.runner import Runner
from service.engine.sessions.model import Model
from service.tasks.body import parse_request
from service.tasks.description import describe_requests, prediction_schema
from service.tasks.predict import PredictRequest, predict
from tests.service.bundles import FAMILIES
from tests.service.pairs import ALL_PAIRS

NAMES = (*ALL_PAIRS, *(family for family in FAMILIES if family != "language-model"))


@pytest.fixture(scope="module")
def every_model(models: dict[str, Model], pair_models: dict[str, Model]) -> dict[str, Model]:
    return {**models, **pair_models}


@pytest.mark.parametrize("name", NAMES)
def test_the_example_is_answered_as_described(name: str, *, every_model: dict[str, Model], runner: Runner) -> None:
    model = every_model[name]
    description = describe_requests(model.manifest)
    request = parse_request(PredictRequest, description["example"])
    answer = asyncio.run(predict(model, runner, request, runner.new_context()))
    assert len(answer["predictions"]) == 1
    schema = description["prediction"]
    assert set(schema["required"]) == set(answer["predictions"][0]) == set(schema["properties"])
    [field] = description["payload"]
    assert field == description["fields"][0]
    assert description["routes"][-1] == "/predict"


def test_a_task_of_its_own_comes_first(every_model: dict[str, Model]) -> None:
    routes = {name: describe_requests(every_model[name].manifest)["routes"] for name in every_model}
    assert routes["tiny-customers"] == ["/classify", "/predict"]
    assert routes["tiny-names"] == ["/sequence-predict", "/predict"]
    assert routes["tiny-prices"] == ["/predict"]
    assert routes["language-model"] == ["/generate"]
    assert routes["image-generator"] == ["/generate", "/predict"]


def payload(model: Model) -> Any:
    [schema] = describe_requests(model.manifest)["payload"].values()
    return schema["items"]


def test_the_columns_of_a_table_are_described(pair_models: dict[str, Model]) -> None:
    row = payload(pair_models["tiny-prices"])
    assert row["properties"] == {
        "age": {"type": "number", "minimum": 0, "maximum": 120},
        "city": {"enum": ["rome", "oslo", "lima"]},
        "height": {"type": "number", "minimum": 0.5, "maximum": 2.5},
    }
    assert row["required"] == ["age", "city", "height"]


def test_sizes_and_limits_are_described(pair_models: dict[str, Model]) -> None:
    assert "4 x 4 (height x width)" in payload(pair_models["tiny-scenes"])["description"]
    assert "3 to 12 x 3 to 10 (height x width)" in payload(pair_models["tiny-masks"])["description"]
    assert "of any size" in payload(pair_models["tiny-photos"])["description"]
    assert "at most 8 tokens" in payload(pair_models["tiny-names"])["description"]
    assert payload(pair_models["tiny-forecast"])["maxItems"] == 8


def test_names_of_the_model_are_in_the_schema_of_a_prediction(pair_models: dict[str, Model]) -> None:
    schemas = {name: prediction_schema(model.manifest) for name, model in pair_models.items()}
    assert schemas["tiny-customers"]["$defs"]["Ranked"]["properties"]["label"] == {
        "enum": ["stays", "leaves", "unsure"]
    }
    assert schemas["tiny-names"]["$defs"]["TokenLabel"]["properties"]["label"]["enum"] == ["person", "place", "other"]
    assert schemas["tiny-prices"]["properties"]["values"]["properties"]["rent"]["description"] == "EUR"
    assert schemas["tiny-vectors"]["properties"]["embedding"]["maxItems"] == 5
    assert "steps" in schemas["tiny-steps"]["properties"]
    assert "outputs" in schemas["tiny-tensors"]["properties"]


def test_tensors_of_many_numbers_have_no_example(pair_models: dict[str, Model]) -> None:
    manifest = pair_models["tiny-tensors"].manifest
    spec = manifest.inputs[0].model_copy(update={"shape": ("batch", 5000)})
    large = manifest.model_copy(update={"inputs": (spec, manifest.inputs[1])})
    assert describe_requests(large)["example"] is None
