"""Text for language models: by default the prose of Python's language reference, `pydoc_data.topics`.

The first 88 % are the training split, the next 2 % the validation split, the last tenth the test split. The tokenizer
is a byte-level BPE fitted on the training split: it encodes every text, and decodes it byte for byte. Of a held-out
split, windows that repeat a passage of the training split are removed. Every other token is a target exactly once, so
the summed loss divided by the number of characters is the text's nats per character.
"""

import hashlib
import platform
import re
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from training.data.source import Source
from training.recipe import IGNORE_INDEX, Data, Split

Ids = npt.NDArray[np.int64]
VOCABULARY = 1024
NOT_FOR = "Not for facts or advice: it only continues a text in this style."

# The words that are split into bytes and merged again. A word matches the same characters whatever stands around it,
# and is short: a text may be cut between any two words, and tokenizing takes linear time.
WORD = r" ?\p{L}{1,16}| ?\p{N}{1,3}| ?[^\s\p{L}\p{N}]{1,8}|\n {0,16}|\s"

# A passage of at least this many characters that also stands in the training split is a repeat. GPT-4 was tested for
# contamination with substrings of the same length (OpenAI 2023, "GPT-4 Technical Report", appendix C).
REPEAT_CHARS = 50

# Shorter paragraphs are headings and signatures; those with a smaller share of letters and spaces are code and tables.
MIN_PROSE_CHARS, MIN_PROSE_LETTERS = 40, 0.88


def load(path: Path | None, *, context: int) -> Data:
    """Windows of `context` tokens; `path` is any UTF-8 text file, plain or gzip."""
    if path is None:
        name = f"pydoc-topics (Python {'.'.join(platform.python_version_tuple()[:2])})"
        note = (
            "The prose of Python's language reference, from the module pydoc_data.topics: each paragraph once and on "
            "one line, without code, grammar and tables; its last tenth is the test split. "
            f"{NOT_FOR}"
        )
        text, sha256 = _topics()
    else:
        source = Source(path)
        if len(source.names) != 1:
            raise ValueError(f"{path}: expected one text file, found {len(source.names)} files")
        text, sha256 = source.read_text(source.names[0]), source.sha256
        name, note = source.name, f"A text of {len(text):,} characters; its last tenth is the test split. {NOT_FOR}"
    boundaries = (len(text) * 22 // 25, len(text) * 9 // 10)
    train = text[: boundaries[0]]
    tokenizer = byte_tokenizer(train)
    ids = np.array(tokenizer.encode(train).ids, np.int64)
    if len(ids) <= 2 * context or len(text) - boundaries[1] < 2:
        raise ValueError(f"{path}: expected a text of more than {3 * context} tokens, found {len(text)} characters")
    held_out = partial(scored_windows, text, repeated(text, boundary=boundaries[0]), tokenizer, context=context)
    test, num_windows = held_out(start=boundaries[1], stop=len(text))
    return Data(
        name=name,
        note=f"{note} {num_windows - len(test)} of its {num_windows} windows repeat {REPEAT_CHARS} or more characters "
        "of the training split and are removed.",
        train=_all_windows(ids, train, context),
        validation=held_out(start=boundaries[0], stop=boundaries[1])[0],
        test=test,
        labels=(),
        sha256=sha256,
        tokenizer=tokenizer.to_str(),
        config={"vocabulary": tokenizer.get_vocab_size(), "context": context},
    )


def _topics() -> tuple[str, dict[str, str]]:
    # Imported only when needed: 700 kB of strings.
    from pydoc_data.topics import topics  # noqa: PLC0415

    text = "\n\n".join(topics[name].strip() for name in sorted(topics)) + "\n"
    return prose(text), {"pydoc_data.topics": hashlib.sha256(text.encode()).hexdigest()}


def prose(text: str) -> str:
    """The paragraphs of sentences in a text, each once and on one line."""
    paragraphs = (" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text))
    return "".join(f"{paragraph}\n" for paragraph in dict.fromkeys(paragraphs) if _is_prose(paragraph))


def _is_prose(paragraph: str) -> bool:
    num_letters = sum(character.isalpha() or character == " " for character in paragraph)
    return (
        len(paragraph) >= MIN_PROSE_CHARS
        and num_letters >= MIN_PROSE_LETTERS * len(paragraph)
        and not re.search(r">>>|::=|[=|+-]{4}", paragraph)
    )


def byte_tokenizer(text: str, vocabulary: int = VOCABULARY) -> Tokenizer:
    """A byte-level BPE (Radford et al. 2019) fitted on `text`: the 256 bytes and at most `vocabulary` tokens in all."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([text], trainer)
    return tokenizer


def _all_windows(ids: Ids, text: str, context: int) -> Split:
    """A window for every start position in the text, as views without a copy."""
    windows = np.lib.stride_tricks.sliding_window_view(ids, context + 1)
    return Split(inputs={"ids": windows[:, :-1]}, targets=windows[:, 1:], texts=(text,))


def repeated(text: str, *, boundary: int) -> npt.NDArray[np.bool_]:
    """Whether each character is in a passage of REPEAT_CHARS that begins after `boundary` and also stands before it."""
    num_passages = max(0, len(text) - REPEAT_CHARS + 1)
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.uint64)
    # A polynomial hash of the passage at each position, modulo 2**64.
    hashes = np.zeros(num_passages, np.uint64)
    for offset in range(REPEAT_CHARS):
        hashes = hashes * np.uint64(6364136223846793005) + points[offset : offset + num_passages]
    known = hashes[: max(0, boundary - REPEAT_CHARS + 1)]
    result = np.zeros(len(text), bool)
    for first in boundary + np.flatnonzero(np.isin(hashes[boundary:], known)):
        result[first : first + REPEAT_CHARS] = True
    return result


def scored_windows(
    text: str, repeats: npt.NDArray[np.bool_], tokenizer: Tokenizer, *, start: int, stop: int, context: int
) -> tuple[Split, int]:
    """Windows in which the tokens of text[start:stop] are targets once, and the number of windows before removal.

    A window has at most half a context of targets, begins with a whole word, and is left out when one of its characters
    is in `repeats` ([characters] of the text). Each token is predicted from at least half a context of earlier tokens,
    or from all where the text is shorter. `start` must be positive. Other targets are IGNORE_INDEX; the texts of the
    split are those of the targets, one for each window. Raises ValueError when every window is left out.
    """
    # A token has at most 16 characters and a space.
    before = tokenizer.encode(text[max(0, start - 17 * (context + 1)) : start]).ids
    encoding = tokenizer.encode(text[start:stop])
    ids = np.array(before + encoding.ids, np.int64)
    bounds = list(_window_bounds(encoding.word_ids, context // 2))
    inputs, targets, texts = [], [], []
    for first, last in pairwise(bounds):
        char, end_char = (start + encoding.offsets[i][0] if i < len(encoding) else stop for i in (first, last))
        if repeats[char:end_char].any():
            continue
        window = ids[max(0, len(before) + last - context - 1) : len(before) + last]
        end = len(window) - 1
        inputs.append(np.pad(window[:-1], (0, context - end)))
        targets.append(np.full(context, IGNORE_INDEX))
        targets[-1][end - (last - first) : end] = window[len(window) - (last - first) :]
        texts.append(text[char:end_char])
    if not texts:
        raise ValueError(
            f"every window of characters {start:,} to {stop:,} repeats {REPEAT_CHARS} or more characters of the "
            "training split"
        )
    split = Split(inputs={"ids": np.stack(inputs)}, targets=np.stack(targets), texts=tuple(texts))
    return split, len(bounds) - 1


def _window_bounds(words: Sequence[int | None], max_tokens: int) -> Iterator[int]:
    """Positions of tokens at most `max_tokens` apart, from the first to the end, where words begin.

    `words` numbers the word of each token. Raises ValueError if a word has more tokens.
    """
    first = 0
    yield first
    while first + max_tokens < len(words):
        last = first + max_tokens
        while last > first and words[last] == words[last - 1]:
            last -= 1
        if last == first:
            raise ValueError(f"a word has more than {max_tokens} tokens, half of the context: use a longer context")
        yield last
        first = last
    yield len(words)
