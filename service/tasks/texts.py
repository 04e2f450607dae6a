"""Texts to token ids.

Invariant: every row has 1 to `max_steps` ids and each id is below the vocabulary's size; a text is shortened only if
the client asked for it.
"""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from service.errors import EkibenError
from service.tasks.body import refuse, wrong

MAX_CHARS_PER_STEP = 100  # a text beyond is too long whatever its tokens are
QUICK_CHARS = 8_192  # about 2 ms; what has more is tokenized on a thread, since nobody else is served meanwhile


async def tokenize(
    texts: Mapping[str, Any], tokenizer: Tokenizer, *, vocabulary: int, max_steps: int, truncate: bool | None = None
) -> list[list[int]]:
    """The ids of each text, which stands under its JSON pointer. Raises the first error of `tokenize_each`."""
    read = partial(tokenize_each, texts, tokenizer, vocabulary=vocabulary, max_steps=max_steps, truncate=truncate)
    num_chars = sum(len(text) for text in texts.values() if isinstance(text, str))
    rows = []
    for row in read() if num_chars <= QUICK_CHARS else await asyncio.to_thread(read):
        if isinstance(row, EkibenError):
            raise row
        rows.append(row)
    return rows


def tokenize_each(
    texts: Mapping[str, Any], tokenizer: Tokenizer, *, vocabulary: int, max_steps: int, truncate: bool | None = None
) -> list[list[int] | EkibenError]:
    """The ids of each text, or what is wrong with it.

    A text of more than `max_steps` tokens is refused, or cut at its end if `truncate`; None if that is not on offer.
    """
    max_chars = max_steps * MAX_CHARS_PER_STEP
    faults = {where: _fault(text, where, max_chars, truncate) for where, text in texts.items()}
    readable = [text[:max_chars] for where, text in texts.items() if faults[where] is None]
    encodings = iter(tokenizer.encode_batch(readable))
    return [
        fault or _checked(next(encodings).ids, where, vocabulary, max_steps, truncate)
        for where, fault in faults.items()
    ]


def pad_ids(rows: Sequence[Sequence[int]]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """ids [batch, steps], zero beyond each row's length, and lengths [batch]."""
    lengths_B = np.array([len(row) for row in rows], np.int64)
    ids_BT = np.zeros((len(rows), int(lengths_B.max())), np.int64)
    for i, row in enumerate(rows):
        ids_BT[i, : len(row)] = row
    return ids_BT, lengths_B


def _fault(text: Any, where: str, max_chars: int, truncate: bool | None) -> EkibenError | None:
    """What can be seen before the tokenizer spends time on a text."""
    if not isinstance(text, str) or not text:
        return wrong(where, "a text that is not empty", text)
    if len(text) > max_chars and not truncate:
        return refuse(where, f"expected at most {max_chars} characters, got {len(text)}{_hint(truncate)}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return refuse(where, f"expected Unicode text, got half a surrogate pair at character {error.start}")
    return None


def _checked(
    ids: list[int], where: str, vocabulary: int, max_steps: int, truncate: bool | None
) -> list[int] | EkibenError:
    if not ids:
        return refuse(where, "expected a text with at least 1 token, got one with none")
    if max(ids) >= vocabulary:
        return refuse(where, f"expected token ids below {vocabulary}, the tokenizer gave {max(ids)}")
    if len(ids) > max_steps and not truncate:
        return refuse(where, f"expected at most {max_steps} tokens, got {len(ids)}{_hint(truncate)}")
    return ids[:max_steps]


def _hint(truncate: bool | None) -> str:
    return "; `truncate` true cuts at the end" if truncate is False else ""
