"""The check of a classification response finds every wrong field."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from export.errors import MismatchError
from export.gates.requests import classification
from export.gates.requests.checked_request import candidate_model
from export.gates.requests.classification import image_cases, series_cases, stateful_cases, text_cases
from service.tasks.replay import answer_request_sync
from tests.export.conftest import Candidates

Response = dict[str, Any]


def wrong_probability(response: Response) -> None:
    response["predictions"][0]["top"][0]["probability"] += 1e-3


def wrong_order(response: Response) -> None:
    response["predictions"][0]["top"].reverse()


def unknown_label(response: Response) -> None:
    response["predictions"][0]["top"][0]["label"] = "eel"


def missing_prediction(response: Response) -> None:
    response["predictions"].pop()


def missing_rank(response: Response) -> None:
    response["predictions"][0]["top"].pop()


def wrong_label(response: Response) -> None:
    response["predictions"][0]["label"] = response["predictions"][0]["top"][1]["label"]


@pytest.mark.parametrize(
    ("corrupt", "expected"),
    [
        (wrong_probability, "rank 1: label .* PyTorch gives it"),
        (wrong_order, "rank 1: label .* at this rank"),
        (unknown_label, "label 'eel' is none of the source's"),
        (missing_prediction, "0 predictions for 1 items"),
        (missing_rank, "2 labels, expected 3"),
        (wrong_label, "its label is not the first of its top"),
    ],
)
def test_a_corrupt_response_is_a_mismatch(
    candidates: Candidates, corrupt: Callable[[Response], None], expected: str
) -> None:
    candidate = candidates("tiny-picture")
    request = next(image_cases(candidate))
    response = answer_request_sync(candidate_model(candidate), {"model": candidate.manifest.name, **request.body})
    request.check(copy.deepcopy(response))
    corrupt(response)
    with pytest.raises(MismatchError, match=expected):
        request.check(response)


def test_bodies_have_both_image_encodings_and_items_of_many_lengths(candidates: Candidates) -> None:
    encodings = {type(image) for request in image_cases(candidates("tiny-colour")) for image in request.body["images"]}
    assert encodings == {str, list}
    lengths = {len(item) for request in series_cases(candidates("tiny-rnn")) for item in request.body["sequences"]}
    assert len(lengths) > 3


def test_a_request_has_no_item_twice(candidates: Candidates) -> None:
    for request in series_cases(candidates("tiny-rnn")):
        sequences = request.body["sequences"]
        assert len({str(sequence) for sequence in sequences}) == len(sequences)


def test_a_wrong_number_of_tokens_is_a_mismatch(candidates: Candidates) -> None:
    candidate = candidates("tiny-text")
    request = next(text_cases(candidate))
    response = answer_request_sync(candidate_model(candidate), {"model": candidate.manifest.name, **request.body})
    response["predictions"][0]["tokens"] += 1
    with pytest.raises(MismatchError, match=r"item 0: .* tokens, training had"):
        request.check(response)


def test_a_tagger_is_sent_each_series_in_two_halves(candidates: Candidates, monkeypatch: pytest.MonkeyPatch) -> None:
    candidate = candidates("tiny-tagger")
    model = candidate_model(candidate)
    sent: list[Response] = []

    def answer(model: Any, body: Response) -> Response:
        sent.append(body)
        return answer_request_sync(model, body)

    monkeypatch.setattr(classification, "answer_request_sync", answer)
    request = next(stateful_cases(candidate))
    request.check(answer_request_sync(model, {"model": candidate.manifest.name, **request.body}))
    [series] = request.body["sequences"]
    head, tail = (body["sequences"][0] for body in sent)
    assert (head + tail, len(head)) == (series, len(series) // 2)
    assert "states" in sent[1]


def test_every_step_of_a_tagger_is_checked(candidates: Candidates) -> None:
    candidate = candidates("tiny-tagger")
    request = next(stateful_cases(candidate))
    response = answer_request_sync(candidate_model(candidate), {"model": candidate.manifest.name, **request.body})
    request.check(copy.deepcopy(response))
    response["predictions"][0]["steps"][1]["probability"] += 1e-3
    with pytest.raises(MismatchError, match="item 0, step 1, rank 1"):
        request.check(response)
