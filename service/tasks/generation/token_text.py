"""The text of a single token. Invariant: no text holds a replacement character for bytes of an incomplete one.

The bytes of a token that is no whole text are named as OpenAI names them: `bytes:\\xe2\\x82`.
"""

import re
from typing import NamedTuple

from tokenizers import Tokenizer

from service.engine.generation.detokenizer import INCOMPLETE

BYTE_TOKEN = re.compile("<0x([0-9A-F]{2})>")


class TokenText(NamedTuple):
    """A token as text, or as the name of its bytes."""

    text: str
    content: bytes


def token_text(tokenizer: Tokenizer, token: int) -> TokenText:
    text = tokenizer.decode([token], skip_special_tokens=False)
    if INCOMPLETE not in text:
        return TokenText(text, text.encode())
    content = _read_bytes(tokenizer.id_to_token(token) or "") or text.encode()
    return TokenText("bytes:" + "".join(f"\\x{byte:02x}" for byte in content), content)


def _read_bytes(token: str) -> bytes | None:
    """Return the bytes that a token of a byte-level vocabulary stands for, or None."""
    if match := BYTE_TOKEN.fullmatch(token):
        return bytes.fromhex(match[1])
    try:
        return bytes(BYTE_OF[character] for character in token)
    except KeyError:
        return None


def _byte_characters() -> dict[str, int]:
    """Return the bytes by the characters that stand for them in byte-level vocabularies.

    Printable characters of Latin-1 stand for themselves, the other bytes for the characters from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


BYTE_OF = _byte_characters()
