"""A model has the tokenizer of its bundle and a bound for the texts that are tokenized on an event loop."""

import dataclasses
import json

import pytest

from service.bundle import Bundle
from service.engine.sessions.model import create_model
from service.engine.sessions.session import Session
from service.errors import BundleError


def session_of(bundle: Bundle) -> Session:
    return Session(bundle.model, manifest=bundle.manifest, device="cpu")


def test_a_text_model_has_a_tokenizer_and_its_cost(bundles: dict[str, Bundle]) -> None:
    bundle = bundles["text-classifier"]
    session = session_of(bundle)
    model = create_model(bundle, session)
    assert model.session is session
    assert model.tokenizer is not None
    assert model.tokenizer.encode("the train").ids == [1, 2]
    assert 10 < model.max_inline_bytes < 100_000


def test_a_measured_tokenizer_is_not_measured_again(
    bundles: dict[str, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = bundles["text-classifier"]
    monkeypatch.delattr("service.engine.sessions.model.measure_cost")
    assert create_model(bundle, session_of(bundle), 1_234).max_inline_bytes == 1_234


def test_other_models_have_no_tokenizer(bundles: dict[str, Bundle]) -> None:
    bundle = bundles["image-classifier"]
    model = create_model(bundle, session_of(bundle))
    assert (model.tokenizer, model.max_inline_bytes) == (None, 0)


def test_a_tokenizer_that_takes_exponential_time_is_refused(bundles: dict[str, Bundle]) -> None:
    bundle = bundles["text-classifier"]
    assert bundle.tokenizer is not None
    rule = {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": "b"}
    slow = dataclasses.replace(bundle, tokenizer=json.dumps({**json.loads(bundle.tokenizer), "normalizer": rule}))
    with pytest.raises(BundleError, match=r"^tiny-texts/.*: tokenizer\.json: (takes|fails on) .* characters of 'a'"):
        create_model(slow, session_of(bundle))
