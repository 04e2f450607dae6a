"""A tokenizer is read from its bundle and must not exceed the model's vocabulary."""

import dataclasses
import json

import pytest

from service.bundle import Bundle
from service.engine.sessions.model import read_tokenizer
from service.errors import BundleError
from tests.service.bundles import WORDS


def test_only_text_models_have_a_tokenizer(bundles: dict[str, Bundle]) -> None:
    tokenizer = read_tokenizer(bundles["text-classifier"])
    assert tokenizer is not None
    assert tokenizer.encode("the train").ids == [1, 2]
    assert read_tokenizer(bundles["image-classifier"]) is None


def test_a_tokenizer_that_cannot_be_parsed_is_refused(bundles: dict[str, Bundle]) -> None:
    broken = dataclasses.replace(bundles["text-classifier"], tokenizer="{}")
    with pytest.raises(BundleError, match=rf"^tiny-texts/{broken.manifest.version}: tokenizer\.json: "):
        read_tokenizer(broken)


def test_a_tokenizer_beyond_the_vocabulary_is_refused(bundles: dict[str, Bundle]) -> None:
    bundle = bundles["text-classifier"]
    assert bundle.tokenizer is not None
    content = json.loads(bundle.tokenizer)
    content["model"]["vocab"]["extra"] = len(WORDS)
    with pytest.raises(BundleError, match=f"token ids up to {len(WORDS)}, the model's vocabulary has {len(WORDS)}"):
        read_tokenizer(dataclasses.replace(bundle, tokenizer=json.dumps(content)))
