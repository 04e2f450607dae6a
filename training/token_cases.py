"""Texts with their ids that together use every token and every rule of a tokenizer.

Training writes them into the run folder, export and service compare them: a tokenizer that was changed in any later
place gives other ids. The ids of test texts come from the test split, those of single tokens from the vocabulary in
tokenizer.json, and those of the probes of its rules from the tokenizer.
"""

import json
import unicodedata
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from tokenizers import Tokenizer, decoders

from training.recipe import IGNORE_INDEX, Split

MAX_TEXTS = 32
GROUP = 64  # tokens or characters in one text
NUM_WORDS = 6
ValueT = TypeVar("ValueT")

MARKUP = (
    "&lt;b&gt;{0}&lt;/b&gt;", "&lt;{0}", "{0}&gt; &lt;", "{0} #39;s", "{0}&#39;s", "{0}&#039;s", "{0}#39;s",
    "{0} &amp; {0}", "{0}&quot;{0}", "{0}  #36;10", "#145;{0}#146;", "{0}\\{0}", "&lt;a href='x?a=1&amp;b=2'&gt;{0}",
)  # fmt: skip
SHAPES = (
    "{0}", " {0}", "{0} ", "  {0}  {0}", "{0}\t{0}\n{0}\r\n{0}", "{0}\u00a0{0}\u2003{0}", "{0}\u200b{0}", "({0})",
    "{0}'s", "{0}-{0}", "{0}_{0}", "{0}!!{0}", "{0}...", "{0}1", "1{0}", "{0} 2004 12,345.67", "{0}{0}",
    "{0}漢字", "漢字 {0}", "{0}😀", "\u0663{0}x²", "{0}/{0}@{0}#{0}", '"{0}"', "[{0}]", "{{{0}}}", "{0}\u0301",
    "{0}\ufdfa", "ﬁ{0}½",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TokenCase:
    """A text, and the ids that the tokenizer gives for it."""

    text: str
    ids: tuple[int, ...]


def choose_cases(content: str, test: Split) -> tuple[TokenCase, ...]:
    """The cases of the tokenizer in this tokenizer.json; the same tokenizer and test split give the same cases."""
    tokenizer = Tokenizer.from_str(content)
    vocabulary = read_vocabulary(content)
    tokens = list(_single_tokens(tokenizer, vocabulary))
    words = [text for text, _ in tokens if text.isalpha() and len(text) > 2][:NUM_WORDS]
    words = words or [text for text, _ in tokens if text.isalpha()][:NUM_WORDS] or ["a"]
    # In a text without spaces, an added token would stand out from the words around it.
    unspaced = ["".join(text for text, _ in group) for group in _groups(tokens)]
    unique: dict[str, TokenCase] = {}
    for case in (
        *_test_cases(test),
        *_vocabulary_cases(tokenizer, tokens),
        *_encoded(tokenizer, [*_probes(words), *_characters(), *unspaced, *_byte_sequences(tokenizer)]),
        *_encoded(tokenizer, list(_names(vocabulary, {text for text, _ in tokens}))),
    ):
        unique.setdefault(case.text, case)
    return tuple(unique.values())


def pack_cases(cases: Iterable[TokenCase]) -> bytes:
    """The cases as JSON, one to a line."""
    return "".join(json.dumps(asdict(case), ensure_ascii=False) + "\n" for case in cases).encode()


def unpack_cases(content: bytes) -> tuple[TokenCase, ...]:
    """The inverse of `pack_cases`. Raises ValueError, KeyError or TypeError for other content."""
    rows = (json.loads(line) for line in content.decode().split("\n") if line)
    return tuple(TokenCase(text=row["text"], ids=tuple(row["ids"])) for row in rows)


def read_vocabulary(content: str) -> dict[str, int]:
    """The id of each token, as tokenizer.json stores it."""
    settings: dict[str, Any] = json.loads(content)
    vocabulary = settings["model"]["vocab"]
    ids = {entry[0]: i for i, entry in enumerate(vocabulary)} if isinstance(vocabulary, list) else dict(vocabulary)
    return ids | {token["content"]: token["id"] for token in settings.get("added_tokens") or []}


def _test_cases(split: Split) -> Iterator[TokenCase]:
    """Test texts with the ids of training: greedily those that add the most ids to the ones before them."""
    rows = dict(_test_ids(split))
    new_ids = {i: set(row) for i, row in rows.items()}
    for _ in range(min(MAX_TEXTS, len(rows))):
        chosen = max(new_ids, key=lambda i: (len(new_ids[i]), -i))
        yield TokenCase(text=split.texts[chosen], ids=tuple(rows[chosen]))
        covered = new_ids.pop(chosen)
        new_ids = {i: ids - covered for i, ids in new_ids.items()}


def _test_ids(split: Split) -> Iterator[tuple[int, list[int]]]:
    """The ids of each text of the split that training did not cut; the texts of a language model are its targets."""
    if len(split.texts) != len(split):
        return
    if "lengths" not in split.inputs:
        yield from ((i, row[row != IGNORE_INDEX].tolist()) for i, row in enumerate(split.targets))
        return
    lengths = split.inputs["lengths"].tolist()
    rows = ((i, split.inputs["ids"][i, :n].tolist()) for i, n in enumerate(lengths) if n < max(lengths))
    # A text without tokens has one id.
    yield from ((i, row) for i, row in rows if row != [1])


def _single_tokens(tokenizer: Tokenizer, vocabulary: dict[str, int]) -> Iterator[tuple[str, int]]:
    """The text and id of each token that some text gives alone, by id."""
    tokens = sorted(vocabulary.items(), key=lambda item: item[1])
    texts = [tokenizer.decode([i], skip_special_tokens=False) or token for token, i in tokens]
    rows = tokenizer.encode_batch(texts, add_special_tokens=False)
    yield from ((text, i) for (_, i), text, row in zip(tokens, texts, rows, strict=True) if row.ids == [i])


def _vocabulary_cases(tokenizer: Tokenizer, tokens: Sequence[tuple[str, int]]) -> Iterator[TokenCase]:
    """Every single token, many to a text where the tokenizer keeps them apart."""
    for group in _groups(tokens):
        ids = [i for _, i in group]
        joined = [separator.join(text for text, _ in group) for separator in (" ", "")]
        rows = tokenizer.encode_batch(joined, add_special_tokens=False)
        text = next((text for text, row in zip(joined, rows, strict=True) if row.ids == ids), None)
        yield from _encoded(tokenizer, [text for text, _ in group] if text is None else [text])


def _names(vocabulary: Iterable[str], texts: Container[str]) -> Iterator[str]:
    """The tokens as tokenizer.json spells them, such as `Ġthe`, unless a token has that text: an added one may."""
    yield from map(" ".join, _groups([name for name in vocabulary if name not in texts]))


def _probes(words: Sequence[str]) -> Iterator[str]:
    """The words in other cases, with accents and in other widths, and in every kind of surroundings."""
    for word in words:
        yield from (word.upper(), word.title(), word.swapcase())
        yield "".join(character + "\u0301" for character in word)
        yield unicodedata.normalize("NFC", "".join(character + "\u0301" for character in word))
        yield "".join(chr(ord(c) + 0xFEE0) if 0x21 <= ord(c) <= 0x7E else c for c in word)
        yield f"{word} {word[::-1]}zqx zqx{word}"
    yield from (shape.format(word) for word in words[:2] for shape in (*SHAPES, *MARKUP))
    yield from (f"{words[0]}{chr(point)}{words[-1]}" for point in (9, 10, *range(0x20, 0x7F)))


def _characters() -> Iterator[str]:
    """Latin, Greek and Cyrillic letters with signs, many to a text, apart from each other."""
    points = [point for point in range(0x21, 0x530) if chr(point).isprintable()]
    yield from (" ".join(map(chr, group)) for group in _groups(points))


def _byte_sequences(tokenizer: Tokenizer) -> Iterator[str]:
    """For a byte-level tokenizer, characters that together have every byte of UTF-8."""
    if isinstance(tokenizer.decoder, decoders.ByteLevel):
        first_bytes = [*((n << 6) for n in range(2, 32)), 0x800, *((n << 12) for n in range(1, 16)), 0x10000]
        points = [*range(0x80, 0xC0), *first_bytes, *((n << 18) for n in range(1, 5))]
        yield from ("".join(map(chr, group)) for group in _groups(points))


def _groups(values: Sequence[ValueT]) -> list[Sequence[ValueT]]:
    return [values[i : i + GROUP] for i in range(0, len(values), GROUP)]


def _encoded(tokenizer: Tokenizer, texts: Sequence[str]) -> Iterator[TokenCase]:
    """The texts that have tokens."""
    for text, row in zip(texts, tokenizer.encode_batch(list(texts)), strict=True):
        if row.ids:
            yield TokenCase(text=text, ids=tuple(row.ids))
