"""Text for character-level language models: by default Python's language reference, `pydoc_data.topics`.

The first 88 % are the training split, the next 2 % the validation split, the last tenth the test split. Of a held-out
split, windows that repeat a passage of the training split are removed. Every other character is a target exactly once,
so the summed loss divided by the number of characters is the text's nats per character.
"""

import hashlib
import platform
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from training.data.source import Source
from training.recipe import IGNORE_INDEX, Data, Split

PADDING, UNKNOWN = "<pad>", "\N{REPLACEMENT CHARACTER}"
Ids = npt.NDArray[np.int64]

# A passage of at least this many characters that also stands in the training split is a repeat. GPT-4 was tested for
# contamination with substrings of the same length (OpenAI 2023, "GPT-4 Technical Report", appendix C).
REPEAT_CHARS = 50


def load(path: Path | None, *, context: int) -> Data:
    """Windows of `context` characters; `path` is any UTF-8 text file, plain or gzip."""
    if path is None:
        name = f"pydoc-topics (Python {'.'.join(platform.python_version_tuple()[:2])})"
        note = "Python's language reference from the module pydoc_data.topics; its last tenth is the test split."
        text, sha256 = _topics()
    else:
        source = Source(path)
        if len(source.names) != 1:
            raise ValueError(f"{path}: expected one text file, found {len(source.names)} files")
        text, sha256 = source.read_text(source.names[0]), source.sha256
        name, note = source.name, f"A text of {len(text):,} characters; its last tenth is the test split."
    boundaries = (len(text) * 22 // 25, len(text) * 9 // 10)
    if boundaries[0] <= 2 * context or len(text) - boundaries[1] < 2:
        raise ValueError(f"{path}: expected a text of more than {3 * context} characters, found {len(text)}")
    tokenizer = character_tokenizer(text[: boundaries[0]])
    ids = character_ids(text, tokenizer)
    repeats = repeated(ids, boundary=boundaries[0])
    held_out = partial(scored_windows, text, ids, repeats, context=context)
    test = held_out(start=boundaries[1], stop=len(text))
    num_windows = len(range(boundaries[1], len(text), context // 2))
    return Data(
        name=name,
        note=f"{note} {num_windows - len(test)} of its {num_windows} windows repeat {REPEAT_CHARS} or more characters "
        "of the training split and are removed.",
        train=_all_windows(ids[: boundaries[0]], text[: boundaries[0]], context),
        validation=held_out(start=boundaries[0], stop=boundaries[1]),
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


def repeated(ids: Ids, *, boundary: int) -> npt.NDArray[np.bool_]:
    """Whether each character is in a passage of REPEAT_CHARS that begins after `boundary` and also stands before it."""
    num_passages = max(0, len(ids) - REPEAT_CHARS + 1)
    # A polynomial hash of the passage at each position, modulo 2**64.
    hashes = np.zeros(num_passages, np.uint64)
    for offset in range(REPEAT_CHARS):
        hashes = hashes * np.uint64(6364136223846793005) + ids[offset : offset + num_passages].astype(np.uint64)
    known = hashes[: max(0, boundary - REPEAT_CHARS + 1)]
    result = np.zeros(len(ids), bool)
    for first in boundary + np.flatnonzero(np.isin(hashes[boundary:], known)):
        result[first : first + REPEAT_CHARS] = True
    return result


def scored_windows(
    text: str, ids: Ids, repeats: npt.NDArray[np.bool_], *, start: int, stop: int, context: int
) -> Split:
    """Windows in which the ids of ids[start:stop] are targets once; other targets are IGNORE_INDEX.

    A window has half a context of targets and is left out when one of them is in `repeats` ([characters] of the text).
    It starts half a context before its targets, so each character is predicted from at least half a context of earlier
    text, or from all of it where the text is shorter. `start` must be positive. The text of the split is that of the
    targets. Raises ValueError when every window is left out.
    """
    stride = context // 2
    firsts = [first for first in range(start, stop, stride) if not repeats[first : min(first + stride, stop)].any()]
    if not firsts:
        raise ValueError(
            f"every window of characters {start:,} to {stop:,} repeats {REPEAT_CHARS} or more characters of the "
            "training split"
        )
    inputs = np.zeros((len(firsts), context), np.int64)
    targets = np.full((len(firsts), context), IGNORE_INDEX, np.int64)
    for row, first in enumerate(firsts):
        last = min(first + stride, stop)
        window_start = max(0, last - context - 1)
        window = ids[window_start:last]
        inputs[row, : len(window) - 1] = window[:-1]
        targets[row, first - window_start - 1 : len(window) - 1] = window[first - window_start :]
    scored = "".join(text[first : min(first + stride, stop)] for first in firsts)
    return Split(inputs={"ids": inputs}, targets=targets, texts=(scored,))
