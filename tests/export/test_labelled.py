"""The check of a labelled answer finds what a client would trip over."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from export.asked import MismatchError
from export.labelled import images, series, tagged, texts
from service.tasks.replay import answer_request_sync
from tests.export.conftest import Candidates

Answer = dict[str, Any]


def wrong_probability(answer: Answer) -> None:
    answer["predictions"][0]["top"][0]["probability"] += 1e-3


def wrong_order(answer: Answer) -> None:
    answer["predictions"][0]["top"].reverse()


def unknown_label(answer: Answer) -> None:
    answer["predictions"][0]["top"][0]["label"] = "eel"


def lost_prediction(answer: Answer) -> None:
    answer["predictions"].pop()


def lost_rank(answer: Answer) -> None:
    answer["predictions"][0]["top"].pop()


def another_label_on_top(answer: Answer) -> None:
    answer["predictions"][0]["label"] = answer["predictions"][0]["top"][1]["label"]


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (wrong_probability, "rank 1: label .* PyTorch gives it"),
        (wrong_order, "rank 1: label .* at this rank"),
        (unknown_label, "label 'eel' is none of the run's"),
        (lost_prediction, "0 predictions for 1 items"),
        (lost_rank, "2 labels, expected 3"),
        (another_label_on_top, "its label is not the first of its top"),
    ],
)
def test_a_spoiled_answer_is_not_pytorchs(
    candidates: Candidates, spoil: Callable[[Answer], None], expected: str
) -> None:
    candidate = candidates("tiny-picture")
    asked = next(images(candidate))
    answer = answer_request_sync(served(candidate), {"model": candidate.manifest.name, **asked.body})
    asked.check(copy.deepcopy(answer))
    spoil(answer)
    with pytest.raises(MismatchError, match=expected):
        asked.check(answer)


def test_bodies_have_pictures_in_both_forms_and_items_of_many_lengths(candidates: Candidates) -> None:
    forms = {type(image) for asked in images(candidates("tiny-colour")) for image in asked.body["images"]}
    assert forms == {str, list}
    lengths = {len(item) for asked in series(candidates("tiny-rnn")) for item in asked.body["sequences"]}
    assert len(lengths) > 3


def test_another_number_of_tokens_is_found(candidates: Candidates) -> None:
    candidate = candidates("tiny-text")
    asked = next(texts(candidate))
    answer = answer_request_sync(served(candidate), {"model": candidate.manifest.name, **asked.body})
    answer["predictions"][0]["tokens"] += 1
    with pytest.raises(MismatchError, match=r"item 0: .* tokens, training had"):
        asked.check(answer)


def test_every_step_of_a_tagger_is_checked(candidates: Candidates) -> None:
    candidate = candidates("tiny-tagger")
    asked = next(tagged(candidate))
    answer = answer_request_sync(served(candidate), {"model": candidate.manifest.name, **asked.body})
    asked.check(copy.deepcopy(answer))
    answer["predictions"][0]["steps"][1]["probability"] += 1e-3
    with pytest.raises(MismatchError, match="item 0, step 1, rank 1"):
        asked.check(answer)
