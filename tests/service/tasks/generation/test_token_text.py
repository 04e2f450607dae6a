"""A token has a text, or the name of its bytes; never a replacement character."""

from tokenizers import Tokenizer, decoders, models

from service.tasks.generation.token_text import BYTE_OF, token_text
from tests.service.chat_bundle import END, END_ID, TOKENS, chat_tokenizer


def test_bytes_of_a_character_are_named_as_openai_names_them() -> None:
    tokenizer = chat_tokenizer()
    texts = [token_text(tokenizer, i) for i in range(len(TOKENS))]
    assert b"".join(text.content for text in texts) == TOKENS
    assert [text.text for text in texts[:5]] == ["a", "b", " ", "bytes:\\xc3", "bytes:\\xa9"]
    assert token_text(tokenizer, END_ID).text == END


def test_tokens_of_byte_fallback_are_bytes() -> None:
    tokenizer = Tokenizer(models.BPE(vocab={"<0xE2>": 0, "a": 1, "<0x0A>": 2, "\ufffd": 3}, merges=[]))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    assert token_text(tokenizer, 0) == ("bytes:\\xe2", b"\xe2")
    assert token_text(tokenizer, 1) == ("a", b"a")
    assert token_text(tokenizer, 2) == ("\n", b"\n")
    assert token_text(tokenizer, 3) == ("bytes:\\xef\\xbf\\xbd", "\ufffd".encode())


def test_every_byte_has_a_character() -> None:
    assert sorted(BYTE_OF.values()) == list(range(256))
    assert (BYTE_OF["A"], BYTE_OF["Ġ"], BYTE_OF["Ċ"], BYTE_OF["Ã"]) == (0x41, 0x20, 0x0A, 0xC3)
