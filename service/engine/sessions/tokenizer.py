"""The tokenizer of a bundle: its bounds, its token cases, and calls that report each text's error on its own.

Invariant: a tokenizer that is served neither cuts nor pads nor draws, gives only ids of the model's vocabulary, and
gives the ids that the bundle's token cases store.
"""

import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

from tokenizers import Encoding, Tokenizer

from service.bundle import Bundle
from service.errors import BundleError, as_exception

MAX_PATTERNS, MAX_PATTERN_CHARS = 64, 2_000

# The library's own threads would compute beside the threads whose number the service limits.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def read_tokenizer(bundle: Bundle) -> Tokenizer | None:
    """Return the bundle's tokenizer, if any.

    Raises BundleError if it cannot be parsed, exceeds a bound or the vocabulary, cuts or pads texts, or gives other ids
    than a token case.
    """
    if bundle.tokenizer is None:
        return None
    label = f"{bundle.manifest.name}/{bundle.manifest.version}"
    try:
        tokenizer = parse_tokenizer(bundle.tokenizer, getattr(bundle.manifest.reader, "vocabulary", None))
    except ValueError as error:
        raise BundleError(f"{label}: tokenizer.json: {error}") from error
    needs_offsets = bundle.manifest.head.kind == "token-labels"
    rows = encode_texts(tokenizer, [case.text for case in bundle.tokens], with_offsets=needs_offsets)
    for number, (case, ids) in enumerate(zip(bundle.tokens, rows, strict=True)):
        if ids != list(case.ids):
            raise BundleError(f"{label}: tokens.jsonl: case {number}: {describe_difference(case.text, case.ids, ids)}")
    return tokenizer


def parse_tokenizer(content: str, vocabulary: int | None = None) -> Tokenizer:
    """Return the tokenizer of a tokenizer.json.

    Raises ValueError if it is invalid, exceeds a bound, cuts or pads texts, or draws their ids at random.
    """
    settings = json.loads(content)
    if not isinstance(settings, dict):
        raise ValueError("holds no JSON object")
    for name in ("truncation", "padding"):
        if settings.get(name) is not None:
            raise ValueError(f"saves {name} settings, which would change the ids of a text: set {name!r} to null")
    model = settings.get("model")
    if isinstance(model, dict) and model.get("dropout"):
        raise ValueError("saves dropout, which gives a text other ids each time: set 'dropout' to null")
    patterns = read_patterns(content)
    if len(patterns) > MAX_PATTERNS or max(map(len, patterns), default=0) > MAX_PATTERN_CHARS:
        raise ValueError(
            f"has {len(patterns)} patterns of up to {max(map(len, patterns))} characters, expected at most "
            f"{MAX_PATTERNS} of at most {MAX_PATTERN_CHARS}"
        )
    try:
        tokenizer = Tokenizer.from_str(content)
    except BaseException as error:  # a panic of the library is no Exception
        raise ValueError(first_line(as_library_error(error))) from error
    max_id = max(tokenizer.get_vocab().values(), default=-1)
    if vocabulary is not None and max_id >= vocabulary:
        raise ValueError(f"has token ids up to {max_id}, the model's vocabulary has {vocabulary}")
    return tokenizer


def read_patterns(content: str) -> list[str]:
    """Return the patterns, regular expressions and literals, of a tokenizer.json's normalizer and pre-tokenizer."""
    settings = json.loads(content)
    return list(_patterns([settings.get("normalizer"), settings.get("pre_tokenizer")]))


def encode_texts(
    tokenizer: Tokenizer, texts: Sequence[str], *, with_offsets: bool = True
) -> list[list[int] | Exception]:
    """Return the ids of each text, or the error with which the library fails on it."""
    encodings = encode_batch(tokenizer, texts, with_offsets=with_offsets)
    return [encoding if isinstance(encoding, Exception) else encoding.ids for encoding in encodings]


def encode_batch(
    tokenizer: Tokenizer, texts: Sequence[str], *, with_offsets: bool, add_special_tokens: bool = True
) -> list[Encoding | Exception]:
    """Return each text as ids, or the error with which the library fails on it.

    Offsets are in code points. Without them, the library takes two thirds of the time. `add_special_tokens` adds those
    that the tokenizer puts around every text.
    """
    # `encode` would hold the interpreter lock, these release it.
    encode = tokenizer.encode_batch if with_offsets else tokenizer.encode_batch_fast
    try:
        return list(encode(list(texts), add_special_tokens=add_special_tokens))
    except BaseException as error:  # noqa: BLE001 - a panic of the library is no Exception
        failure = as_library_error(error)
    if len(texts) == 1:
        return [failure]
    return [
        encode_batch(tokenizer, [text], with_offsets=with_offsets, add_special_tokens=add_special_tokens)[0]
        for text in texts
    ]


def as_library_error(error: BaseException) -> Exception:
    """Return the library's error, with its panics as RuntimeError; raises what does not come from the library."""
    if isinstance(error, Exception) or type(error).__name__ == "PanicException":
        return as_exception(error)
    raise error


def describe_difference(text: str, expected: Sequence[int], ids: list[int] | Exception) -> str:
    """Return in one line how the ids of a text, or the error, differ from the expected ids."""
    quoted = repr(text) if len(text) <= 60 else f"{text[:60]!r}…"
    if isinstance(ids, Exception):
        return f"the tokenizer fails on {quoted}: {first_line(ids)}"
    if len(ids) != len(expected):
        return f"{quoted} has {len(ids)} tokens, expected {len(expected)}"
    position = next(i for i, (a, b) in enumerate(zip(ids, expected, strict=True)) if a != b)
    return f"token {position} of {quoted} is {ids[position]}, expected {expected[position]}"


def _patterns(settings: Any) -> Iterator[str]:
    match settings:
        case {"pattern": {"Regex": str(pattern)} | {"String": str(pattern)}, **others}:
            yield pattern
            yield from _patterns(list(others.values()))
        case dict():
            yield from _patterns(list(settings.values()))
        case list():
            for part in settings:
                yield from _patterns(part)


def first_line(error: Exception) -> str:
    """Return the message of an error without the lines that follow the first."""
    return str(error).partition("\n")[0]
