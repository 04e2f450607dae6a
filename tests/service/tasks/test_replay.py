"""Stored answers match within the tolerance, and differences are named."""

import base64
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.bundle import RequestCase
from service.engine.sessions.model import Model
from service.errors import BundleError, EkibenError
from service.tasks.codecs.images import encode_png
from service.tasks.replay import answer_request_sync, compare_answers, replay_requests
from tests.service.chat_bundle import HEAD, write_chat_bundle
from tests.service.poisoned import read_model
from tests.service.requests import REQUEST_FIELDS, request_body


@pytest.mark.parametrize("family", REQUEST_FIELDS)
def test_answer_matches_itself(family: str, models: dict[str, Model]) -> None:
    case = RequestCase(
        request=request_body(family),
        answer={**answer_request_sync(models[family], request_body(family)), "version": "0" * 12},
    )
    replay_requests(models[family], [case])


def base64_png(height: int, width: int) -> str:
    return base64.b64encode(encode_png(np.zeros((height, width), np.uint8))).decode()


def changed(answer: dict[str, Any], *path: Any, to: Any) -> dict[str, Any]:
    answer = copy.deepcopy(answer)
    place: Any = answer
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = to(place[path[-1]]) if callable(to) else to
    return answer


@pytest.mark.parametrize(
    ("family", "path", "to", "is_equal"),
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
        ("image-generator", ("images", 1), base64_png(4, 4), False),
        ("image-generator", ("images", 1), base64_png(4, 5), False),
        ("image-generator", ("seed",), 2, False),
    ],
)
def test_difference_is_named(
    family: str,
    path: tuple[Any, ...],
    to: Any,
    is_equal: bool,
    *,
    models: dict[str, Model],
    run_task: Callable[..., Any],
) -> None:
    got = run_task(family, **REQUEST_FIELDS[family])
    difference = compare_answers(changed(got, *path, to=to), got, models[family].manifest)
    assert (difference is None) is is_equal
    if difference is not None:
        assert difference.startswith("/" + "/".join(str(step) for step in path))


def test_changed_case_is_refused_with_its_number(models: dict[str, Model]) -> None:
    model = models["text-classifier"]
    good = RequestCase(
        request=request_body("text-classifier"), answer=answer_request_sync(model, request_body("text-classifier"))
    )
    bad = RequestCase(request=good.request, answer=changed(good.answer, "predictions", 0, "label", to="weather"))
    label = good.answer["predictions"][0]["label"]
    with pytest.raises(BundleError, match=f"case 1: /predictions/0/label: expected 'weather', got '{label}'$"):
        replay_requests(model, [good, bad])


def test_refused_case_names_the_reason(models: dict[str, Model]) -> None:
    case = RequestCase(request={**request_body("text-classifier"), "texts": []}, answer={})
    with pytest.raises(BundleError, match="case 0 is refused: /texts: expected 1 to 8 items"):
        replay_requests(models["text-classifier"], [case])


def test_case_for_another_model_is_refused(models: dict[str, Model]) -> None:
    with pytest.raises(EkibenError, match="expected 'tiny-texts', got 'tiny-tags'"):
        answer_request_sync(models["text-classifier"], {"model": "tiny-tags", "texts": ["rice"]})


@pytest.mark.parametrize(
    ("source", "message"),
    [("{% for", "the chat template fails: TemplateSyntaxError"), ("Hello", "writes the same prompt")],
)
def test_a_chat_template_that_writes_no_conversation_is_refused(
    tmp_path: Path, source: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    replay_requests(read_model(write_chat_bundle(tmp_path / "whole")), [])
    monkeypatch.setitem(HEAD, "chat_template", {"source": source, "special_tokens": {}})
    model = read_model(write_chat_bundle(tmp_path / "broken"))
    with pytest.raises(BundleError, match=f"{model.manifest.version}: .*{message}"):
        replay_requests(model, [])
