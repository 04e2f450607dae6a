"""A tokenizer is read from its bundle under bounds, and gives the ids of the bundle's token cases."""

import dataclasses
import json
import os
import subprocess
import sys
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from service.bundle import Bundle, TokenCase
from service.engine.sessions.tokenizer import (
    MAX_PATTERNS,
    as_library_error,
    describe_difference,
    encode_batch,
    encode_texts,
    parse_tokenizer,
    read_patterns,
    read_tokenizer,
)
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


def changed(bundle: Bundle, **settings: Any) -> str:
    assert bundle.tokenizer is not None
    return json.dumps({**json.loads(bundle.tokenizer), **settings})


@pytest.mark.parametrize("setting", ["truncation", "padding"])
def test_settings_that_cut_or_pad_are_refused(bundles: dict[str, Bundle], setting: str) -> None:
    tokenizer = Tokenizer.from_str(changed(bundles["text-classifier"]))
    if setting == "truncation":
        tokenizer.enable_truncation(3)
    else:
        tokenizer.enable_padding(length=8)
    with pytest.raises(ValueError, match=f"saves {setting} settings, .*: set '{setting}' to null"):
        parse_tokenizer(tokenizer.to_str())


def test_a_tokenizer_that_draws_ids_is_refused(bundles: dict[str, Bundle]) -> None:
    assert bundles["language-model"].tokenizer is not None
    settings = json.loads(bundles["language-model"].tokenizer)
    model = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}
    # So small that the token cases seldom notice it.
    random = json.dumps({**settings, "model": {**model, "dropout": 1e-6}})
    with pytest.raises(ValueError, match="saves dropout, which gives a text other ids each time"):
        parse_tokenizer(random)
    for never in (None, 0.0):
        parse_tokenizer(json.dumps({**settings, "added_tokens": [], "model": {**model, "dropout": never}}))


def test_sizes_are_bounded(bundles: dict[str, Bundle]) -> None:
    rule = {"type": "Replace", "pattern": {"Regex": "a"}, "content": "b"}
    many = {"type": "Sequence", "normalizers": [rule] * (MAX_PATTERNS + 1)}
    with pytest.raises(ValueError, match="has 65 patterns of up to 1 characters, expected at most 64"):
        parse_tokenizer(changed(bundles["text-classifier"], normalizer=many))
    long = {**rule, "pattern": {"String": "a" * 2_001}}
    with pytest.raises(ValueError, match="1 patterns of up to 2001 characters"):
        parse_tokenizer(changed(bundles["text-classifier"], normalizer=long))
    with pytest.raises(ValueError, match="holds no JSON object"):
        parse_tokenizer("[]")


def test_patterns_are_those_of_normalizer_and_pre_tokenizer(bundles: dict[str, Bundle]) -> None:
    rules = [{"type": "Replace", "pattern": {"Regex": "a+"}, "content": "b"}, {"type": "NFD"}]
    split = {"type": "Split", "pattern": {"String": "-"}, "behavior": "Removed", "invert": False}
    content = changed(
        bundles["text-classifier"], normalizer={"type": "Sequence", "normalizers": rules}, pre_tokenizer=split
    )
    assert read_patterns(content) == ["a+", "-"]


def test_token_cases_are_compared(bundles: dict[str, Bundle]) -> None:
    cases = (TokenCase(text="the train", ids=(1, 2)), TokenCase(text="rice zebra", ids=(6, 0)))
    bundle = dataclasses.replace(bundles["text-classifier"], tokens=cases)
    assert read_tokenizer(bundle) is not None
    content = json.loads(changed(bundle))
    ids = content["model"]["vocab"]
    ids["rice"], ids["fish"] = ids["fish"], ids["rice"]
    swapped = dataclasses.replace(bundle, tokenizer=json.dumps(content))
    expected = r"^tiny-texts/.*: tokens\.jsonl: case 1: token 0 of 'rice zebra' is 7, expected 6$"
    with pytest.raises(BundleError, match=expected):
        read_tokenizer(swapped)
    del content["model"]["unk_token"]
    with pytest.raises(BundleError, match=r"case 1: the tokenizer fails on 'rice zebra': .*Missing"):
        read_tokenizer(
            dataclasses.replace(
                bundle, tokenizer=json.dumps({**content, "model": {**content["model"], "unk_token": "?"}})
            )
        )


def test_a_difference_is_one_line() -> None:
    assert describe_difference("a b", [1, 2], [1, 3]) == "token 1 of 'a b' is 3, expected 2"
    assert describe_difference("a b", [1, 2], [1]) == "'a b' has 1 tokens, expected 2"
    assert describe_difference("x" * 99, [1], [2]).startswith(f"token 0 of '{'x' * 60}'… is")
    assert describe_difference("a", [1], RuntimeError("first\nsecond")) == "the tokenizer fails on 'a': first"


def test_a_panic_of_the_library_is_an_error_of_its_text() -> None:
    tokenizer = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    tokenizer.normalizer = normalizers.Replace(Regex("(a+)+$"), " ")
    for with_offsets in (True, False):
        first, second = encode_texts(tokenizer, ["b", "a" * 40 + "!"], with_offsets=with_offsets)
        assert first == [0]
        assert isinstance(second, RuntimeError)
        assert "retry-limit" in str(second)


def test_ids_are_the_same_with_and_without_offsets() -> None:
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "rice": 1, "é": 2, "[CLS]": 3}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A", None, [("[CLS]", 3)])
    texts = ["rice é", "é 🌾 rice", ""]
    placed, quick = (encode_batch(tokenizer, texts, with_offsets=with_offsets) for with_offsets in (True, False))
    assert [row.ids for row in placed] == [row.ids for row in quick] == [[3, 1, 2], [3, 2, 0, 1], [3]]
    assert [row.special_tokens_mask for row in placed] == [row.special_tokens_mask for row in quick]
    assert placed[1].offsets[2:] == [(2, 3), (4, 8)]


def test_what_is_no_error_of_the_library_is_raised() -> None:
    with pytest.raises(KeyboardInterrupt):
        as_library_error(KeyboardInterrupt())


def test_the_library_computes_on_no_threads_of_its_own() -> None:
    """The library reads the variable when it encodes a batch."""
    code = "import os, service.engine.sessions.tokenizer; print(os.environ['TOKENIZERS_PARALLELISM'])"
    environment = {name: value for name, value in os.environ.items() if name != "TOKENIZERS_PARALLELISM"}
    for given, expected in (({}, "false"), ({"TOKENIZERS_PARALLELISM": "true"}, "true")):
        printed = subprocess.check_output([sys.executable, "-c", code], env=environment | given, text=True)
        assert printed.strip() == expected
