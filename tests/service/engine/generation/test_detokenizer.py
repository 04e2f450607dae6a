"""The released texts joined are the text of all tokens, and stop strings are never released."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from service.engine.generation.detokenizer import INCOMPLETE, MAX_WINDOW, IncrementalDetokenizer, TokenDecoder

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


def byte_symbols() -> list[str]:
    """The symbol of each byte: printable ones are their own, the others follow from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


@pytest.fixture(scope="module")
def byte_level() -> Tokenizer:
    assert sorted(byte_symbols()) == sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(byte_symbols())}, merges=[]))
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


BYTES = {f"<0x{byte:02X}>": byte for byte in range(256)}


def with_special(model: models.Model, decoder: decoders.Decoder) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.decoder = decoder
    tokenizer.add_special_tokens(["</s>"])
    return tokenizer


@pytest.fixture(scope="module")
def tokenizers(byte_level: Tokenizer) -> dict[str, Tokenizer]:
    byte_level.add_special_tokens(["</s>"])
    words = ["[UNK]", "a", "##b", "##", ".", "'", "##'", "駅", "n't"]
    fallback = BYTES | {"▁": 256, "▁a": 257, "駅": 258}
    llama = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    return {
        "byte-level": byte_level,
        "wordpiece": with_special(
            models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"), decoders.WordPiece()
        ),
        "metaspace": with_special(
            models.BPE({"▁": 0, "▁a": 1, "b": 2, "▁▁b▁": 3}, []), decoders.Metaspace(prepend_scheme="first")
        ),
        "byte-fallback": with_special(models.BPE(fallback, [], byte_fallback=True), decoders.Sequence(llama)),
        "bpe-suffix": with_special(models.BPE({"a": 0, "b</w>": 1, "</w>": 2}, []), decoders.BPEDecoder()),
    }


def ids_of(name: str, size: int) -> st.SearchStrategy[list[int]]:
    """Random ids, runs of one id, and texts whose bytes are cut or mixed with others."""
    ids = st.integers(0, size - 1)
    parts = [st.lists(ids, max_size=20), st.builds(lambda i, num: [i] * num, ids, st.integers(1, 60))]
    if name.startswith("byte"):
        some_bytes = st.text("aé駅😀\n", max_size=12).map(lambda text: list(text.encode()))
        parts += [some_bytes, some_bytes.map(lambda row: row[1:]), some_bytes.map(lambda row: row[:-1])]
        parts += [st.lists(st.sampled_from([0xE9, 0xA7, 0x85, 0xF0, 0x9F, 0xFF, size - 1]), max_size=30)]
    return st.lists(st.one_of(parts), max_size=6).map(lambda lists: [i for part in lists for i in part])


@pytest.mark.parametrize("name", ["byte-level", "wordpiece", "metaspace", "byte-fallback", "bpe-suffix"])
@settings(deadline=None, max_examples=80)
@given(data=st.data())
def test_released_text_is_the_text_of_all_tokens(
    name: str, data: st.DataObject, tokenizers: dict[str, Tokenizer]
) -> None:
    """At each step, released text is the start of the text of all tokens: never an INCOMPLETE that it lacks."""
    tokenizer = tokenizers[name]
    decoder = TokenDecoder(tokenizer)
    ids = data.draw(ids_of(name, tokenizer.get_vocab_size()))
    detokenizer = IncrementalDetokenizer(decoder)
    released = ""
    for i in ids:
        released += detokenizer.append(i)
        assert tokenizer.decode(ids).startswith(released)
    assert released + detokenizer.finish() == detokenizer.text == tokenizer.decode(ids)
    assert detokenizer.ids == ids


@pytest.mark.parametrize("name", ["byte-level", "wordpiece", "metaspace", "bpe-suffix"])
def test_only_a_few_tokens_are_decoded_at_a_time(name: str, tokenizers: dict[str, Tokenizer]) -> None:
    """Texts, invalid bytes and special tokens alike: the cost of a token does not grow."""
    tokenizer = tokenizers[name]
    sizes = []

    def counting(ids: Sequence[int]) -> str:
        sizes.append(len(ids))
        return tokenizer.decode(ids)

    special = tokenizer.token_to_id("</s>")
    for ids in ([i % special for i in range(700)], [1] * 700, [1, *[special] * 700]):
        detokenizer = IncrementalDetokenizer(counting)
        for i in ids:
            detokenizer.append(i)
        assert join([detokenizer.text, detokenizer.finish()]) == tokenizer.decode(ids)
    assert max(sizes) <= 2 * MAX_WINDOW


def test_a_run_of_bytes_is_decoded_once(tokenizers: dict[str, Tokenizer]) -> None:
    """Its last byte may make the whole run invalid, so nothing of it is released before it ends."""
    decoder = TokenDecoder(tokenizers["byte-fallback"])
    for end, expected in ((b"", "駅\n" * 100), (b"\xff", INCOMPLETE * 401)):
        detokenizer = IncrementalDetokenizer(decoder)
        assert not any(detokenizer.append(byte) for byte in ("駅\n" * 100).encode() + end)
        assert detokenizer.append(257) == expected + " a"


def test_a_token_of_the_name_of_a_byte_is_one_only_for_the_decoder_of_bytes(tokenizers: dict[str, Tokenizer]) -> None:
    literal = with_special(models.BPE({"<0x41>": 0, "b": 1}, []), decoders.Fuse())
    assert [TokenDecoder(literal).is_byte(token) for token in (0, 1, 7)] == [False] * 3
    decoder = TokenDecoder(tokenizers["byte-fallback"])
    assert [decoder.is_byte(token) for token in (0x41, 0xE9, 257)] == [True, True, False]


@given(data=st.data())
@settings(deadline=None)
def test_stops_across_tokens_are_never_released(data: st.DataObject, tokenizers: dict[str, Tokenizer]) -> None:
    tokenizer = tokenizers["byte-level"]
    ids = tokenizer.encode(data.draw(st.text("aé😀", max_size=40))).ids
    stops = data.draw(st.lists(st.text("aé😀", min_size=1, max_size=4), max_size=4))
    detokenizer = IncrementalDetokenizer(TokenDecoder(tokenizer), stops)
    released = ""
    for i in ids:
        released += detokenizer.append(i)
        assert not any(stop in released for stop in stops)
        if detokenizer.stopped:
            break
    released += detokenizer.finish()
    whole = tokenizer.decode(ids)
    found = [whole.find(stop) for stop in stops if stop in whole]
    assert detokenizer.stopped == bool(found)
    assert released == whole[: min(found)] if len(stops) == 1 and found else whole.startswith(released)


def test_a_stop_string_in_what_was_held_back_ends_the_text(tokenizers: dict[str, Tokenizer]) -> None:
    detokenizer = IncrementalDetokenizer(TokenDecoder(tokenizers["byte-fallback"]), ["\n"])
    assert [detokenizer.append(token) for token in (257, 0x41, 0x0A, 0x42)] == ["a", "", "", ""]
    assert (detokenizer.finish(), detokenizer.text, detokenizer.stopped) == ("A", "aA", True)
