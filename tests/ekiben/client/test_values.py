"""The values of the client name the fields of the service."""

from typing import Any, get_type_hints

import pytest

from ekiben.client.values import Completion, Completions, Images, Items, Latents, Predictions, Sampling, TextEvent
from service.tasks.generate import Completion as ServiceCompletion
from service.tasks.generate import GenerateAnswer, GenerateRequest, StreamEvent
from service.tasks.predict import PredictRequest


@pytest.mark.parametrize(
    ("fields", "request_body", "others"),
    [
        (Items, PredictRequest, {"model"}),
        (Sampling, GenerateRequest, {"model", "prompt", *get_type_hints(Latents)} - {"seed"}),
        (Latents, GenerateRequest, {"model", "prompt", *get_type_hints(Sampling)} - {"seed"}),
    ],
)
def test_requests_have_all_fields(fields: Any, request_body: Any, others: set[str]) -> None:
    assert set(get_type_hints(fields)) == set(request_body.model_fields) - others


@pytest.mark.parametrize(
    ("value", "answers", "others"),
    [
        (Completion, ServiceCompletion, set()),
        (Completions, GenerateAnswer, {"images"}),
        (Images, GenerateAnswer, {"completions"}),
        (TextEvent, StreamEvent, set()),
    ],
)
def test_answers_have_all_fields(value: Any, answers: Any, others: set[str]) -> None:
    assert set(get_type_hints(value)) == set(answers.model_fields) - others


def test_predictions() -> None:
    assert set(get_type_hints(Predictions)) == {"model", "version", "predictions"}
