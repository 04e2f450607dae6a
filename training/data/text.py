"""Plain text to continue, character by character: by default Python's own language reference, `pydoc_data.topics`.

The first nine tenths are learned from (their end is the validation split), the last tenth is the test. Every character
of a held-back part is predicted exactly once, with the longest context that its window allows, so the sum of the losses
over the number of characters is the text's nats per character.
"""

import hashlib
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from training.data.source import Source
from training.recipe import Data, Split

PADDING, UNKNOWN = "<pad>", "\N{REPLACEMENT CHARACTER}"
IGNORED = -100  # the target of a character that an earlier window has scored
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
        text, sha256 = source.text(source.names[0]), source.sha256
        name, note = source.names[0], f"A text of {len(text):,} characters; its last tenth is the test."
    cuts = (len(text) * 22 // 25, len(text) * 9 // 10)
    if cuts[0] <= 2 * context or len(text) - cuts[1] < 2:
        raise ValueError(f"{path}: expected a text of more than {3 * context} characters, found {len(text)}")
    tokenizer = character_tokenizer(text[: cuts[0]])
    ids = character_ids(text, tokenizer)
    held_out = partial(scored_windows, text, ids, context=context)
    return Data(
        name=name,
        note=note,
        train=_all_windows(ids[: cuts[0]], text[: cuts[0]], context),
        validation=held_out(start=cuts[0], stop=cuts[1]),
        test=held_out(start=cuts[1], stop=len(text)),
        labels=(),
        sha256=sha256,
        tokenizer=tokenizer.to_str(),
        config={"vocabulary": tokenizer.get_vocab_size(), "context": context},
    )


def _topics() -> tuple[str, dict[str, str]]:
    from pydoc_data.topics import topics  # noqa: PLC0415  (700 kB of strings)

    text = "\n\n".join(topics[name].strip() for name in sorted(topics)) + "\n"
    return text, {"pydoc_data.topics": hashlib.sha256(text.encode()).hexdigest()}


def character_tokenizer(text: str) -> Tokenizer:
    """A token for each character of `text`, by code point, after padding (0) and unknown (1); decoding joins them."""
    vocabulary = {token: i for i, token in enumerate((PADDING, UNKNOWN, *sorted(set(text) - {UNKNOWN})))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def character_ids(text: str, tokenizer: Tokenizer) -> Ids:
    """What `tokenizer` makes of `text`, looked up at once instead of in a second for each half a million characters."""
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    found, places = np.unique(points, return_inverse=True)
    unknown = tokenizer.token_to_id(UNKNOWN)
    ids = (tokenizer.token_to_id(chr(point)) for point in found)
    return np.array([unknown if i is None else i for i in ids], np.int64)[places]


def _all_windows(ids: Ids, text: str, context: int) -> Split:
    """Every window of the text, one for each place it can begin, without a copy."""
    windows = np.lib.stride_tricks.sliding_window_view(ids, context + 1)
    return Split(inputs={"ids": windows[:, :-1]}, targets=windows[:, 1:], texts=(text,))


def scored_windows(text: str, ids: Ids, *, start: int, stop: int, context: int) -> Split:
    """Windows whose targets tile ids[start:stop]: each window begins half a context early, on what came before.

    So a character is predicted from at least half a context of earlier ones, as a reader of the whole text would.
    `start` is not the text's beginning.
    """
    stride = context // 2
    firsts = range(start, stop, stride)
    inputs = np.zeros((len(firsts), context), np.int64)
    targets = np.full((len(firsts), context), IGNORED, np.int64)
    for row, first in enumerate(firsts):
        last = min(first + stride, stop)
        begin = max(0, last - context - 1)
        window = ids[begin:last]
        inputs[row, : len(window) - 1] = window[:-1]
        targets[row, first - begin - 1 : len(window) - 1] = window[first - begin :]
    return Split(inputs={"ids": inputs}, targets=targets, texts=(text[start:stop],))
