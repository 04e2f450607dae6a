"""Converts texts to token ids.

Invariant: a row has 1 to `max_steps` ids below the size of the vocabulary. A text is cut only if the client asks for
it; the special tokens that the tokenizer adds around it are kept.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from tokenizers import Encoding

from service.contract.heads import LanguageModelHead
from service.contract.readers import TextReader
from service.engine.context import RequestContext
from service.engine.runner import Runner
from service.engine.sessions.model import Model
from service.engine.sessions.tokenizer import encode_batch, first_line
from service.errors import EkibenError, Fault
from service.tasks.faults import fault, type_fault

# A text with more characters per step has too many tokens in any case: it is refused or cut before it is tokenized.
MAX_CHARS_PER_STEP = 100
# Texts of this length take about 3 ms, after which the texts of another request have their turn.
CHUNK_CHARS = 8_192


class TokenizedText(NamedTuple):
    """The ids of a text, and the places in its encoding that they come from; it has offsets for token labels alone."""

    text: str
    ids: list[int]
    places: Sequence[int]
    encoding: Encoding


async def tokenize(
    texts: Mapping[str, Any],
    model: Model,
    runner: Runner,
    context: RequestContext,
    *,
    truncate: bool | None = None,
    add_special_tokens: bool = True,
) -> list[list[int]]:
    """Return the ids of each text, as `tokenize_rows`."""
    rows = await tokenize_rows(texts, model, runner, context, truncate=truncate, add_special_tokens=add_special_tokens)
    return [row.ids for row in rows]


async def tokenize_rows(
    texts: Mapping[str, Any],
    model: Model,
    runner: Runner,
    context: RequestContext,
    *,
    truncate: bool | None = None,
    add_special_tokens: bool = True,
) -> list[TokenizedText]:
    """Tokenize each text; `texts` maps JSON pointers to texts. Raises the first error of `encode_each`.

    Texts that may take the tokenizer long run on a thread of the runner, in chunks that alternate with those of other
    requests.
    """
    encode = partial(encode_each, model=model, truncate=truncate, add_special_tokens=add_special_tokens)
    runs_inline = sum(map(_num_bytes, texts.values())) <= model.max_inline_bytes
    rows = []
    for chunk in [texts] if runs_inline else _chunks(texts):
        for row in encode(chunk) if runs_inline else await runner.call_host(encode, chunk, context=context):
            if isinstance(row, EkibenError):
                raise row
            rows.append(row)
    return rows


def encode_each(
    texts: Mapping[str, Any], model: Model, *, truncate: bool | None = None, add_special_tokens: bool = True
) -> list[TokenizedText | EkibenError]:
    """Tokenize each text, or return its error; the prompt of a language model leaves room for one token.

    A text of too many tokens is cut if `truncate` is true, else refused; if it is false, the error suggests it.
    `add_special_tokens` adds those that the tokenizer puts around every text.
    """
    reader, max_steps = model.manifest.reader, model.manifest.limits.max_steps
    assert isinstance(reader, TextReader), "the reader of text models"
    assert model.tokenizer is not None, "every text model has a tokenizer"
    assert max_steps is not None, "every text model has max_steps"
    max_steps -= isinstance(model.manifest.head, LanguageModelHead)
    max_chars = max_steps * MAX_CHARS_PER_STEP
    errors = {pointer: _text_error(text, pointer, max_chars, truncate) for pointer, text in texts.items()}
    valid = [text[:max_chars] for pointer, text in texts.items() if errors[pointer] is None]
    needs_offsets = model.manifest.head.kind == "token-labels"
    encodings = encode_batch(model.tokenizer, valid, with_offsets=needs_offsets, add_special_tokens=add_special_tokens)
    rows = iter(zip(valid, encodings, strict=True))
    return [
        error or _checked_row(*next(rows), pointer, reader.vocabulary, max_steps, truncate)
        for pointer, error in errors.items()
    ]


def _chunks(texts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Split the texts, in order, into chunks of at most CHUNK_CHARS characters or of one text."""
    chunks: list[dict[str, Any]] = [{}]
    left = CHUNK_CHARS
    for pointer, text in texts.items():
        if _num_chars(text) > left and chunks[-1]:
            chunks.append({})
            left = CHUNK_CHARS
        chunks[-1][pointer] = text
        left -= _num_chars(text)
    return chunks


def _num_chars(text: Any) -> int:
    return len(text) if isinstance(text, str) else 0


def _num_bytes(text: Any) -> int:
    return len(text.encode(errors="replace")) if isinstance(text, str) else 0


def _text_error(text: Any, pointer: str, max_chars: int, truncate: bool | None) -> EkibenError | None:
    """Return an error that can be detected without the tokenizer, or None."""
    if not isinstance(text, str) or not text:
        return type_fault(pointer, "a non-empty text", text)
    if len(text) > max_chars and not truncate:
        return fault(pointer, f"expected at most {max_chars} characters, got {len(text)}{_hint(truncate)}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return fault(pointer, f"expected Unicode text, got half a surrogate pair at character {error.start}")
    return None


def _checked_row(  # noqa: PLR0917
    text: str, encoding: Encoding | Exception, pointer: str, vocabulary: int, max_steps: int, truncate: bool | None
) -> TokenizedText | EkibenError:
    if isinstance(encoding, Exception):
        detail = f"the tokenizer fails on this text: {first_line(encoding)}"
        return EkibenError("internal", f"{pointer}: {detail}", (Fault(pointer=pointer, detail=detail),))
    ids = encoding.ids
    if not ids:
        return fault(pointer, "expected a text with at least 1 token, got one with none")
    if max(ids) >= vocabulary:
        return fault(pointer, f"expected token ids below {vocabulary}, but the tokenizer gave {max(ids)}")
    if len(ids) <= max_steps:
        return TokenizedText(text, ids, range(len(ids)), encoding)
    if not truncate:
        return fault(pointer, f"expected at most {max_steps} tokens, got {len(ids)}{_hint(truncate)}")
    places = _kept_places(encoding, max_steps)
    return TokenizedText(text, [ids[place] for place in places], places, encoding)


def _kept_places(encoding: Encoding, max_steps: int) -> Sequence[int]:
    """Return the places of the first `max_steps` tokens, with all those that the tokenizer adds around a text."""
    is_special = encoding.special_tokens_mask
    if 1 not in is_special:
        return range(max_steps)
    left = max(max_steps - sum(is_special), 0)
    places = []
    for place, special in enumerate(is_special):
        if special or left > 0:
            places.append(place)
            left -= not special
    return places[:max_steps]


def _hint(truncate: bool | None) -> str:
    return "; set `truncate` to cut it at the end" if truncate is False else ""
