"""A stored answer is recognised, and any change in it is named."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from service.bundle import RequestCase
from service.engine.sessions.model import Model
from service.errors import BundleError, EkibenError
from service.tasks.images import encode_png, to_base64
from service.tasks.replay import answer_now, compare_answers, replay_requests
from tests.service.bodies import BODIES, body


@pytest.mark.parametrize("family", BODIES)
def test_an_answer_equals_itself(family: str, models: dict[str, Model]) -> None:
    case = RequestCase(request=body(family), answer={**answer_now(models[family], body(family)), "version": "0" * 12})
    replay_requests(models[family], [case])


def moved(answer: dict[str, Any], *path: Any, to: Any) -> dict[str, Any]:
    answer = copy.deepcopy(answer)
    place: Any = answer
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = to(place[path[-1]]) if callable(to) else to
    return answer


@pytest.mark.parametrize(
    ("family", "path", "to", "same"),
    [
        ("image-classifier", ("predictions", 0, "probability"), lambda p: p + 5e-6, True),
        ("image-classifier", ("predictions", 0, "probability"), lambda p: p + 2e-4, False),
        ("image-classifier", ("predictions", 0, "probability"), float("nan"), False),
        ("image-classifier", ("predictions", 0, "label"), "fox", False),
        ("image-classifier", ("predictions", 0, "top"), lambda top: top[:-1], False),
        ("image-classifier", ("model",), "other", False),
        ("text-classifier", ("predictions", 1, "tokens"), 2, False),
        ("text-classifier", ("predictions", 1, "tokens"), 1.0, False),
        ("series-tagger", ("predictions", 0, "state"), lambda s: s[:9] + ("B" if s[9] == "A" else "A") + s[10:], False),
        ("series-tagger", ("predictions", 0, "steps", 1, "label"), "x", False),
        ("language-model", ("completions", 0, "text"), "nothing", False),
        ("language-model", ("completions", 0, "logprobs", 0, "logprob"), lambda p: p + 1e-5, True),
        ("language-model", ("completions", 0, "logprobs", 0, "logprob"), lambda p: p + 1e-2, False),
        ("image-generator", ("images", 1), to_base64(encode_png(np.zeros((4, 4), np.uint8))), False),
        ("image-generator", ("images", 1), to_base64(encode_png(np.zeros((4, 5), np.uint8))), False),
        ("image-generator", ("seed",), 2, False),
    ],
)
def test_a_change_is_named(
    family: str, path: tuple[Any, ...], to: Any, same: bool, *, models: dict[str, Model], ask: Callable[..., Any]
) -> None:
    got = ask(family, **BODIES[family])
    difference = compare_answers(moved(got, *path, to=to), got, models[family].manifest)
    assert (difference is None) is same
    if difference is not None:
        assert difference.startswith("/" + "/".join(str(step) for step in path))


def test_a_changed_case_is_refused_with_its_number(models: dict[str, Model]) -> None:
    model = models["text-classifier"]
    good = RequestCase(request=body("text-classifier"), answer=answer_now(model, body("text-classifier")))
    bad = RequestCase(request=good.request, answer=moved(good.answer, "predictions", 0, "label", to="weather"))
    with pytest.raises(BundleError, match="case 1: /predictions/0/label: expected 'weather', got"):
        replay_requests(model, [good, bad])


def test_a_case_that_is_refused_says_why(models: dict[str, Model]) -> None:
    case = RequestCase(request={**body("text-classifier"), "texts": []}, answer={})
    with pytest.raises(BundleError, match="case 0 is refused: /texts: expected 1 to 8 items"):
        replay_requests(models["text-classifier"], [case])


def test_a_case_for_another_model_is_refused(models: dict[str, Model]) -> None:
    with pytest.raises(EkibenError, match="expected 'tiny-texts', got 'tiny-tags'"):
        answer_now(models["text-classifier"], {"model": "tiny-tags", "texts": ["rice"]})
