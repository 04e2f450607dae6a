"""The released pieces joined are the text, and stop strings are never released."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from service.engine.generation.detokenizer import IncrementalDetokenizer

join = "".join


def decode(ids: list[int]) -> str:
    return join(chr(i) for i in ids)


def deltas(detokenizer: IncrementalDetokenizer, text: str) -> list[str]:
    released = []
    for character in text:
        released.append(detokenizer.append(ord(character)))
        if detokenizer.stopped:
            break
    return [*released, detokenizer.finish()]


def test_without_stops_every_token_is_released_at_once() -> None:
    assert deltas(IncrementalDetokenizer(decode), "abc") == ["a", "b", "c", ""]


def test_a_possible_stop_is_held_back_until_it_is_none() -> None:
    assert deltas(IncrementalDetokenizer(decode, ["END"]), "aENbEN") == ["a", "", "", "ENb", "", "", "EN"]


def test_the_text_ends_before_a_stop() -> None:
    detokenizer = IncrementalDetokenizer(decode, ["END", "\n"])
    assert deltas(detokenizer, "aENDb") == ["a", "", "", "", ""]
    assert (detokenizer.text, detokenizer.stopped, len(detokenizer.ids)) == ("a", True, 4)


def test_the_first_of_several_stops_in_one_token_counts() -> None:
    words = ["say ", "x.y;z"]
    detokenizer = IncrementalDetokenizer(lambda ids: join(words[i] for i in ids), [";", "."])
    assert [detokenizer.append(0), detokenizer.append(1)] == ["say ", "x"]
    assert detokenizer.stopped


def test_empty_stops_are_ignored() -> None:
    assert join(deltas(IncrementalDetokenizer(decode, [""]), "abc")) == "abc"


@given(
    text=st.text("ab\n", max_size=30),
    stops=st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3),
)
def test_the_text_ends_before_the_first_stop(text: str, stops: list[str]) -> None:
    detokenizer = IncrementalDetokenizer(decode, stops)
    released = deltas(detokenizer, text)
    stop_ends = [end for end in range(len(text) + 1) if any(stop in text[:end] for stop in stops)]
    prefix = text[: stop_ends[0]] if stop_ends else text
    expected = prefix[: min(prefix.find(stop) for stop in stops if stop in prefix)] if stop_ends else text
    assert join(released) == detokenizer.text == expected
    assert detokenizer.stopped == bool(stop_ends)


@pytest.fixture(scope="module")
def byte_level() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


@given(text=st.text(max_size=12).map(lambda text: text.encode(errors="ignore").decode()))
def test_characters_of_several_tokens_are_released_whole(text: str, byte_level: Tokenizer) -> None:
    detokenizer = IncrementalDetokenizer(byte_level.decode)
    released = [detokenizer.append(token) for token in byte_level.encode(text).ids]
    assert join([*released, detokenizer.finish()]) == text
    if "\N{REPLACEMENT CHARACTER}" not in text:
        assert all("\N{REPLACEMENT CHARACTER}" not in delta for delta in released)


def test_finish_releases_an_incomplete_character(byte_level: Tokenizer) -> None:
    detokenizer = IncrementalDetokenizer(byte_level.decode)
    for token in byte_level.encode("駅").ids[:2]:
        assert detokenizer.append(token) == ""
    assert detokenizer.finish() == "\N{REPLACEMENT CHARACTER}"
