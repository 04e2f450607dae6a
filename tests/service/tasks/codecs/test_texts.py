"""Texts become ids within the limits of the model, or the error names the limit."""

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import Tokenizer

from service.contract.heads import LabelsHead
from service.contract.readers import TextReader
from service.engine.runner import Runner
from service.errors import EkibenError
from service.manifest import RequestLimits
from service.tasks.codecs.texts import CHUNK_CHARS, MAX_CHARS_PER_STEP, encode_each, tokenize
from tests.service.bundles import WORDS, tokenizer_json

TOKENIZER = Tokenizer.from_str(tokenizer_json("text-classifier"))


def model_of(vocabulary: int = len(WORDS), tokenizer: Any = TOKENIZER, max_inline_bytes: int = 8_000) -> Any:
    """Return a model that reads at most 4 tokens."""
    reader, head = TextReader(vocabulary=vocabulary), LabelsHead(labels=("a", "b"))
    limits = RequestLimits(max_items=8, max_steps=4)
    manifest = SimpleNamespace(name="tiny-texts", reader=reader, head=head, limits=limits)
    return SimpleNamespace(manifest=manifest, tokenizer=tokenizer, max_inline_bytes=max_inline_bytes)


def ids_of(
    *texts: Any, truncate: bool = False, vocabulary: int = len(WORDS), tokenizer: Any = TOKENIZER
) -> list[list[int]]:
    rows = {f"/texts/{i}": text for i, text in enumerate(texts)}
    runner = Runner()
    try:
        model = model_of(vocabulary, tokenizer)
        return asyncio.run(tokenize(rows, model, runner, runner.new_context(), truncate=truncate))
    finally:
        runner.close()


def test_tokenize_returns_the_ids_of_each_text() -> None:
    assert ids_of("the train leaves", "rice zebra") == [[1, 2, 3], [6, 0]]


def test_truncate_cuts_a_long_text() -> None:
    assert ids_of("the train leaves at noon", truncate=True) == [[1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("", "expected a non-empty text, got ''"),
        (7, "expected a non-empty text, got 7"),
        (None, "got null"),
        ("  \n", "expected a text with at least 1 token, got one with none"),
        ("the train leaves at noon", "expected at most 4 tokens, got 5; set `truncate` to cut it at the end"),
        ("x" * (4 * MAX_CHARS_PER_STEP + 1), "expected at most 400 characters, got 401; set `truncate` to cut it"),
        ("caf\ud800", "expected Unicode text, got half a surrogate pair at character 3"),
    ],
)
def test_invalid_text_is_refused(text: Any, detail: str) -> None:
    with pytest.raises(EkibenError) as caught:
        ids_of("rice", text)
    assert caught.value.faults[0].pointer == "/texts/1"
    assert detail in caught.value.faults[0].detail


def test_a_text_of_as_many_characters_as_are_allowed_is_tokenized() -> None:
    assert ids_of("x" * 4 * MAX_CHARS_PER_STEP) == [[0]]


def test_ids_beyond_the_vocabulary_are_refused() -> None:
    with pytest.raises(EkibenError, match="expected token ids below 6, but the tokenizer gave 6"):
        ids_of("rice", vocabulary=6)


def ids_of_each(texts: dict[str, Any], model: Any) -> list[Any]:
    """The ids of each text, or its error."""
    return [row if isinstance(row, EkibenError) else row.ids for row in encode_each(texts, model)]


def test_each_text_has_ids_or_an_error() -> None:
    texts = {"/texts/0": "rice", "/texts/1": None, "/texts/2": "the train", "/texts/3": " "}
    first, second, third, fourth = ids_of_each(texts, model_of())
    assert (first, third) == ([6], [1, 2])
    assert isinstance(second, EkibenError)
    assert isinstance(fourth, EkibenError)
    assert (second.faults[0].pointer, fourth.faults[0].pointer) == ("/texts/1", "/texts/3")


def test_huge_text_is_cut_before_it_is_tokenized() -> None:
    assert ids_of("rice " * 10**6, truncate=True) == [[6] * 4]


class RecordingTokenizer:
    """A tokenizer that records the number of characters and the thread of each call."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, str]] = []

    def encode_batch_fast(self, texts: list[str], *, add_special_tokens: bool) -> list[Any]:
        self.calls.append((sum(map(len, texts)), threading.current_thread().name))
        return TOKENIZER.encode_batch_fast(texts)


def test_few_bytes_are_tokenized_inline() -> None:
    recording = RecordingTokenizer()
    assert ids_of(*["rice " * 80] * 20, truncate=True, tokenizer=recording) == [[6] * 4] * 20
    assert recording.calls == [(8000, threading.current_thread().name)]


def test_more_bytes_than_the_model_allows_leave_the_event_loop() -> None:
    recording = RecordingTokenizer()
    assert ids_of("é rice" * 1_000, "rice", truncate=True, tokenizer=recording) == [[0] * 4, [6]]
    assert ids_of("é rice" * 1_200, truncate=True, tokenizer=recording) == [[0] * 4]
    assert [thread for _, thread in recording.calls] == [threading.current_thread().name, "host-0"]


def test_many_characters_are_tokenized_in_chunks_on_the_host_thread() -> None:
    recording = RecordingTokenizer()
    texts = ["train " * 60, "rice " * 10**6] * 30
    assert ids_of(*texts, truncate=True, tokenizer=recording) == [[2] * 4, [6] * 4] * 30
    assert sum(num_chars for num_chars, _ in recording.calls) == 60 * 4 * MAX_CHARS_PER_STEP - 30 * 40
    assert all(num_chars <= CHUNK_CHARS for num_chars, _ in recording.calls)
    assert {thread for _, thread in recording.calls} == {"host-0"}


def test_a_chunk_is_filled_to_its_last_character() -> None:
    recording = RecordingTokenizer()
    ids_of(*["x" * (CHUNK_CHARS // 2)] * 4, truncate=True, tokenizer=recording)
    assert [num_chars for num_chars, _ in recording.calls] == [2 * 4 * MAX_CHARS_PER_STEP] * 2


def test_many_characters_raise_the_first_error() -> None:
    with pytest.raises(EkibenError) as caught:
        ids_of(*["rice " * 80] * 40, "x" * 401, None)
    assert caught.value.faults[0].pointer == "/texts/0"


class FailingTokenizer:
    """A tokenizer that panics, as the library does, on texts with an "x"."""

    def encode_batch_fast(self, texts: list[str], *, add_special_tokens: bool) -> list[Any]:
        if any("x" in text for text in texts):
            raise PanicException("retry-limit-in-match over\nstack backtrace")
        return TOKENIZER.encode_batch_fast(texts)


class PanicException(BaseException):
    pass


def test_a_panic_is_an_error_of_its_text_alone() -> None:
    texts = {"/texts/0": "rice", "/texts/1": "fox", "/texts/2": "fish"}
    first, second, third = ids_of_each(texts, model_of(tokenizer=FailingTokenizer()))
    assert (first, third) == ([6], [7])
    assert isinstance(second, EkibenError)
    assert second.slug == "internal"
    assert second.detail == "/texts/1: the tokenizer fails on this text: PanicException: retry-limit-in-match over"
    assert f"{second.faults[0].pointer}: {second.faults[0].detail}" == second.detail
