"""Texts become the ids that the tokenizer's own library gives, special tokens included, also when they are cut."""

import asyncio
from typing import Any

import pytest
from tokenizers import Tokenizer

from service.engine.runner import Runner
from service.engine.sessions.model import Model
from service.errors import EkibenError
from service.tasks.readers.text import read
from tests.service.pairs import make_tokenizer

MAX_STEPS = 8
LONG = "ann lives in rome and bob works at acme"


def read_all(model: Model, runner: Runner, texts: list[Any], *, truncate: bool = False) -> Any:
    fields = {"texts": texts, "truncate": truncate}
    return asyncio.run(read(model, runner, fields, runner.new_context())).groups[0]


@pytest.fixture(scope="module")
def reference() -> Any:
    """The tokenizer as `transformers` uses it."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer.from_str(make_tokenizer().to_str())
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]")


@pytest.mark.parametrize("num_words", [1, 2, 5, 6, 7, 9, 26])
def test_ids_are_those_of_transformers(num_words: int, *, reference: Any, pair_models: Any, runner: Runner) -> None:
    text = " ".join((LONG.split() * 3)[:num_words])
    group = read_all(pair_models["tiny-names"], runner, [text], truncate=True)
    expected = reference(text, truncation=True, max_length=MAX_STEPS)["input_ids"]
    assert group.inputs["ids"].tolist() == [expected]
    assert group.inputs["lengths"].tolist() == [len(expected)]


def test_a_special_token_that_the_text_holds_is_part_of_the_text(
    reference: Any, pair_models: dict[str, Model], runner: Runner
) -> None:
    text = "ann [SEP] lives [CLS] in rome [SEP] and bob"
    group = read_all(pair_models["tiny-names"], runner, [text], truncate=True)
    assert group.inputs["ids"].tolist() == [reference(text, truncation=True, max_length=MAX_STEPS)["input_ids"]]


def test_a_text_of_too_many_tokens_is_refused_unless_it_may_be_cut(
    pair_models: dict[str, Model], runner: Runner
) -> None:
    with pytest.raises(EkibenError, match=r"^/texts/1: expected at most 8 tokens, got 11; set `truncate`"):
        read_all(pair_models["tiny-names"], runner, ["ann", LONG])


def test_texts_keep_their_encodings(pair_models: dict[str, Model], runner: Runner) -> None:
    group = read_all(pair_models["tiny-names"], runner, ["ann lives", LONG], truncate=True)
    assert [text.text for text in group.texts] == ["ann lives", LONG]
    assert list(group.texts[0].places) == [0, 1, 2, 3]
    assert list(group.texts[1].places) == [0, 1, 2, 3, 4, 5, 6, 10]


def test_a_request_has_texts(pair_models: dict[str, Model], runner: Runner) -> None:
    with pytest.raises(EkibenError, match="/texts: this field is required: tiny-names reads texts"):
        read_all(pair_models["tiny-names"], runner, None)  # type: ignore[arg-type]
