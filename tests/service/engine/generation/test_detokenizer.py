"""Text that grows by tokens: pieces joined are the text, stop strings never show."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from service.engine.generation.detokenizer import Transcript

letters = "".join


def characters(ids: list[int]) -> str:
    return letters(chr(i) for i in ids)


def pieces(transcript: Transcript, text: str) -> list[str]:
    released = []
    for character in text:
        released.append(transcript.push(ord(character)))
        if transcript.stopped:
            break
    return [*released, transcript.finish()]


def test_without_stops_every_token_shows_at_once() -> None:
    assert pieces(Transcript(characters), "abc") == ["a", "b", "c", ""]


def test_what_may_become_a_stop_is_held_until_it_does_not() -> None:
    assert pieces(Transcript(characters, ["END"]), "aENbEN") == ["a", "", "", "ENb", "", "", "EN"]


def test_a_stop_ends_the_text_before_it() -> None:
    transcript = Transcript(characters, ["END", "\n"])
    assert pieces(transcript, "aENDb") == ["a", "", "", "", ""]
    assert (transcript.text, transcript.stopped, len(transcript.ids)) == ("a", True, 4)


def test_one_token_may_bring_several_stops() -> None:
    words = ["say ", "x.y;z"]
    transcript = Transcript(lambda ids: letters(words[i] for i in ids), [";", "."])
    assert [transcript.push(0), transcript.push(1)] == ["say ", "x"]
    assert transcript.stopped


def test_empty_stops_stop_nothing() -> None:
    assert letters(pieces(Transcript(characters, [""]), "abc")) == "abc"


@given(
    text=st.text("ab\n", max_size=30),
    stops=st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3),
)
def test_streamed_or_not_the_text_ends_before_the_first_stop(text: str, stops: list[str]) -> None:
    transcript = Transcript(characters, stops)
    released = pieces(transcript, text)
    ends = [end for end in range(len(text) + 1) if any(stop in text[:end] for stop in stops)]
    seen = text[: ends[0]] if ends else text
    expected = seen[: min(seen.find(stop) for stop in stops if stop in seen)] if ends else text
    assert letters(released) == transcript.text == expected
    assert transcript.stopped == bool(ends)


@pytest.fixture(scope="module")
def byte_level() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


@given(text=st.text(max_size=12).map(lambda text: text.encode(errors="ignore").decode()))
def test_characters_of_several_tokens_show_whole(text: str, byte_level: Tokenizer) -> None:
    transcript = Transcript(byte_level.decode)
    released = [transcript.push(token) for token in byte_level.encode(text).ids]
    assert letters([*released, transcript.finish()]) == text
    if "\N{REPLACEMENT CHARACTER}" not in text:
        assert all("\N{REPLACEMENT CHARACTER}" not in piece for piece in released)


def test_a_character_that_never_ends_shows_as_unfinished(byte_level: Tokenizer) -> None:
    transcript = Transcript(byte_level.decode)
    for token in byte_level.encode("駅").ids[:2]:
        assert transcript.push(token) == ""
    assert transcript.finish() == "\N{REPLACEMENT CHARACTER}"
