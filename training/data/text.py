"""Text for character-level language models: by default Python's language reference, `pydoc_data.topics`.

The first 88 % are the training split, the next 2 % the validation split, the last tenth the test split. Every character
of a held-out split is a target exactly once, so the summed loss divided by the number of characters is the text's nats
per character.
"""

import hashlib
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from training.data.source import Source
from training.recipe import IGNORE_INDEX, Data, Split

PADDING, UNKNOWN = "<pad>", "\N{REPLACEMENT CHARACTER}"
Ids = npt.NDArray[np.int64]


def load(path: Path | None, *, context: int) -> Data:
    """Windows of `context` characters; `path` is any UTF-8 text file, plain or gzip."""
    if path is None:
        name, note = "pydoc_data.topics", "Python's language reference, as the help system carries it."
        text, sha256 = _topics()
    else:
        source = Source(path)
        if len(source.names) != 1:
            raise ValueError(f"{path}: expected one text file, found {len(source.names)} files")
        text, sha256 = source.read_text(source.names[0]), source.sha256
        name, note = source.names[0], f"A text of {len(text):,} characters; its last tenth is the test."
    boundaries = (len(text) * 22 // 25, len(text) * 9 // 10)
    if boundaries[0] <= 2 * context or len(text) - boundaries[1] < 2:
        raise ValueError(f"{path}: expected a text of more than {3 * context} characters, found {len(text)}")
    tokenizer = character_tokenizer(text[: boundaries[0]])
    ids = character_ids(text, tokenizer)
    held_out = partial(scored_windows, text, ids, context=context)
    return Data(
        name=name,
        note=note,
        train=_all_windows(ids[: boundaries[0]], text[: boundaries[0]], context),
        validation=held_out(start=boundaries[0], stop=boundaries[1]),
        test=held_out(start=boundaries[1], stop=len(text)),
        labels=(),
        sha256=sha256,
        tokenizer=tokenizer.to_str(),
        config={"vocabulary": tokenizer.get_vocab_size(), "context": context},
    )


def _topics() -> tuple[str, dict[str, str]]:
    # Imported only when needed: 700 kB of strings.
    from pydoc_data.topics import topics  # noqa: PLC0415

    text = "\n\n".join(topics[name].strip() for name in sorted(topics)) + "\n"
    return text, {"pydoc_data.topics": hashlib.sha256(text.encode()).hexdigest()}


def character_tokenizer(text: str) -> Tokenizer:
    """A tokenizer of single characters: padding (0), unknown (1), then the characters of `text` by code point."""
    vocabulary = {token: i for i, token in enumerate((PADDING, UNKNOWN, *sorted(set(text) - {UNKNOWN})))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def character_ids(text: str, tokenizer: Tokenizer) -> Ids:
    """The same ids as `tokenizer.encode(text).ids`, which takes a second per 500,000 characters."""
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    distinct, positions = np.unique(points, return_inverse=True)
    unknown = tokenizer.token_to_id(UNKNOWN)
    ids = (tokenizer.token_to_id(chr(point)) for point in distinct)
    return np.array([unknown if i is None else i for i in ids], np.int64)[positions]


def _all_windows(ids: Ids, text: str, context: int) -> Split:
    """A window for every start position in the text, as views without a copy."""
    windows = np.lib.stride_tricks.sliding_window_view(ids, context + 1)
    return Split(inputs={"ids": windows[:, :-1]}, targets=windows[:, 1:], texts=(text,))


def scored_windows(text: str, ids: Ids, *, start: int, stop: int, context: int) -> Split:
    """Windows in which every id of ids[start:stop] is a target once; other targets are IGNORE_INDEX.

    A window starts half a context before its targets, so each character is predicted from at least half a context of
    earlier text, or from all of it where the text is shorter. `start` must be positive.
    """
    stride = context // 2
    firsts = range(start, stop, stride)
    inputs = np.zeros((len(firsts), context), np.int64)
    targets = np.full((len(firsts), context), IGNORE_INDEX, np.int64)
    for row, first in enumerate(firsts):
        last = min(first + stride, stop)
        window_start = max(0, last - context - 1)
        window = ids[window_start:last]
        inputs[row, : len(window) - 1] = window[:-1]
        targets[row, first - window_start - 1 : len(window) - 1] = window[first - window_start :]
    return Split(inputs={"ids": inputs}, targets=targets, texts=(text[start:stop],))
