"""Texts become ids within the model's limits, or are refused with the limit named."""

import asyncio
import threading
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from service.engine.runner import Runner
from service.errors import EkibenError
from service.tasks.texts import MAX_CHARS_PER_STEP, QUICK_CHARS, pad_ids, tokenize, tokenize_each
from tests.service.bundles import WORDS, tokenizer_json

TOKENIZER = Tokenizer.from_str(tokenizer_json("text-classifier"))


def ids_of(
    *texts: Any, truncate: bool = False, vocabulary: int = len(WORDS), tokenizer: Any = TOKENIZER
) -> list[list[int]]:
    rows = {f"/texts/{i}": text for i, text in enumerate(texts)}
    runner = Runner()
    try:
        return asyncio.run(
            tokenize(
                rows, tokenizer, runner, runner.new_context(), vocabulary=vocabulary, max_steps=4, truncate=truncate
            )
        )
    finally:
        runner.close()


def test_each_text_has_its_own_ids() -> None:
    assert ids_of("the train leaves", "rice zebra") == [[1, 2, 3], [6, 0]]


def test_a_long_text_is_cut_only_if_asked() -> None:
    assert ids_of("the train leaves at noon", truncate=True) == [[1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("", "expected a text that is not empty, got ''"),
        (7, "expected a text that is not empty, got 7"),
        (None, "got null"),
        ("  \n", "expected a text with at least 1 token, got one with none"),
        ("the train leaves at noon", "expected at most 4 tokens, got 5; `truncate` true cuts at the end"),
        ("x" * (4 * MAX_CHARS_PER_STEP + 1), "expected at most 400 characters, got 401; `truncate` true cuts"),
        ("caf\ud800", "expected Unicode text, got half a surrogate pair at character 3"),
    ],
)
def test_what_cannot_be_read_is_refused(text: Any, detail: str) -> None:
    with pytest.raises(EkibenError) as caught:
        ids_of("rice", text)
    assert caught.value.faults[0].pointer == "/texts/1"
    assert detail in caught.value.faults[0].detail


def test_ids_beyond_the_vocabulary_never_reach_the_model() -> None:
    with pytest.raises(EkibenError, match="expected token ids below 6, the tokenizer gave 6"):
        ids_of("rice", vocabulary=6)


def test_rows_are_padded_with_zeros() -> None:
    ids, lengths = pad_ids([[1, 2, 3], [4]])
    assert ids.tolist() == [[1, 2, 3], [4, 0, 0]]
    assert lengths.tolist() == [3, 1]
    assert ids.dtype == lengths.dtype == np.int64


def test_each_text_has_its_ids_or_its_own_fault() -> None:
    texts = {"/texts/0": "rice", "/texts/1": None, "/texts/2": "the train", "/texts/3": " "}
    first, second, third, fourth = tokenize_each(texts, TOKENIZER, vocabulary=len(WORDS), max_steps=4)
    assert (first, third) == ([6], [1, 2])
    assert isinstance(second, EkibenError)
    assert isinstance(fourth, EkibenError)
    assert (second.faults[0].pointer, fourth.faults[0].pointer) == ("/texts/1", "/texts/3")


def test_a_huge_text_is_cut_before_the_tokenizer_reads_it() -> None:
    assert ids_of("rice " * 10**6, truncate=True) == [[6] * 4]


class Watched:
    """A tokenizer that notes what it is given, and on which thread."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, str]] = []

    def encode_batch(self, texts: list[str]) -> list[Any]:
        self.calls.append((sum(map(len, texts)), threading.current_thread().name))
        return TOKENIZER.encode_batch(texts)


def test_few_characters_are_tokenized_at_once() -> None:
    watched = Watched()
    assert ids_of(*["rice " * 80] * 20, truncate=True, tokenizer=watched) == [[6] * 4] * 20
    assert watched.calls == [(8000, threading.current_thread().name)]


def test_many_characters_take_turns_with_what_others_asked_for() -> None:
    watched = Watched()
    texts = ["train " * 60, "rice " * 10**6] * 30
    assert ids_of(*texts, truncate=True, tokenizer=watched) == [[2] * 4, [6] * 4] * 30
    assert sum(num_chars for num_chars, _ in watched.calls) == 60 * 4 * MAX_CHARS_PER_STEP - 30 * 40
    assert all(num_chars <= QUICK_CHARS for num_chars, _ in watched.calls)
    assert {thread for _, thread in watched.calls} == {"runner-0"}


def test_of_many_characters_the_first_fault_is_told() -> None:
    with pytest.raises(EkibenError) as caught:
        ids_of(*["rice " * 80] * 40, "x" * 401, None)
    assert caught.value.faults[0].pointer == "/texts/0"
