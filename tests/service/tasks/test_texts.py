"""Texts become ids within the model's limits, or are refused with the limit named."""

import asyncio
from threading import Event
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from service.errors import EkibenError
from service.tasks.texts import MAX_CHARS_PER_STEP, pad_ids, tokenize, tokenize_each
from tests.service.bundles import WORDS, tokenizer_json

TOKENIZER = Tokenizer.from_str(tokenizer_json("text-classifier"))


def ids_of(*texts: Any, truncate: bool = False, vocabulary: int = len(WORDS)) -> list[list[int]]:
    rows = {f"/texts/{i}": text for i, text in enumerate(texts)}
    return asyncio.run(tokenize(rows, TOKENIZER, vocabulary=vocabulary, max_steps=4, truncate=truncate))


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


def test_many_characters_are_tokenized_while_others_are_served() -> None:
    """The tokenizer waits for something that only the event loop, in a later turn, will do."""
    served = Event()

    class Patient:
        def encode_batch(self, texts: list[str]) -> list[Any]:
            assert served.wait(10)
            return TOKENIZER.encode_batch(texts)

    async def serve() -> list[list[int]]:
        texts = {f"/texts/{i}": "rice " * 80 for i in range(21)}
        reading = asyncio.ensure_future(
            tokenize(texts, Patient(), vocabulary=len(WORDS), max_steps=4, truncate=True)  # type: ignore[arg-type]
        )
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(served.set)
        return await reading

    assert asyncio.run(serve()) == [[6] * 4] * 21
