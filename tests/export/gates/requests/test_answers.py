"""A prediction that differs from the reference in anything is refused."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from export.errors import MismatchError
from export.gates.requests.answers import expected_outputs
from export.gates.requests.checked_request import candidate_model
from export.gates.requests.prediction import predict_cases
from service.tasks.replay import answer_request_sync
from tests.export.tiny_sources import make_candidate

Change = Callable[[dict[str, Any]], object]


def swap_labels(prediction: dict[str, Any]) -> None:
    first, second = prediction["labels"][:2]
    first["label"], second["label"] = second["label"], first["label"]


def shift_embedding(prediction: dict[str, Any]) -> None:
    prediction["embedding"][2] += 0.01


def shift_score(prediction: dict[str, Any]) -> None:
    prediction["outputs"]["scores"][1] += 0.01


CHANGES: dict[str, tuple[str, int, Change, str]] = {
    "labels swapped": ("tiny-multilabel", 1, swap_labels, "label .* expected"),
    "a label left out": ("tiny-multilabel", 1, lambda one: one["labels"].pop(), "is missing at 0"),
    "a number moved": ("tiny-embedding", 0, shift_embedding, "output 'embedding' is 0.01 away from PyTorch"),
    "a score moved": ("tiny-detector", 0, shift_score, "output 'scores' is 0.01 away from the given outputs"),
    "an output left out": ("tiny-detector", 0, lambda one: one["outputs"].pop("boxes"), r"outputs \['scores'\]"),
    "a value renamed": (
        "tiny-regression",
        0,
        lambda one: one["values"].update(cost=one["values"].pop("price")),
        r"values \['size', 'cost'\], expected \['price', 'size'\]",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_prediction_is_refused(change: str) -> None:
    name, number, apply, message = CHANGES[change]
    candidate = make_candidate(name)
    request = list(predict_cases(candidate))[number]
    response = answer_request_sync(candidate_model(candidate), {"model": name, **request.body})
    request.check(copy.deepcopy(response))
    apply(response["predictions"][0])
    with pytest.raises(MismatchError, match=message):
        request.check(response)


def test_expected_outputs_have_no_batch_axis() -> None:
    candidate = make_candidate("tiny-regression")
    features = candidate.source.examples.inputs["features"]
    expected = candidate.source.predict({"features": features})["values"][3]
    assert expected_outputs(candidate, {"features": features[3]})["values"] == pytest.approx(expected, rel=1e-5)
