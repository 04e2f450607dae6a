"""Texts to token ids.

Invariant: every row has 1 to `max_steps` ids and each id is below the vocabulary's size; a text is shortened only if
the client asked for it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from service.tasks.body import refuse, wrong


def tokenize(
    texts: Mapping[str, Any], tokenizer: Tokenizer, *, vocabulary: int, max_steps: int, truncate: bool | None = None
) -> list[list[int]]:
    """The ids of each text, which stands under its JSON pointer.

    A text of more than `max_steps` tokens is refused, or cut at its end if `truncate`; None if that is not on offer.
    """
    for where, text in texts.items():
        if not isinstance(text, str) or not text:
            raise wrong(where, "a text that is not empty", text)
        if not text.isascii():
            _check_unicode(text, where)
    rows = [encoding.ids for encoding in tokenizer.encode_batch(list(texts.values()))]
    for where, ids in zip(texts, rows, strict=True):
        if not ids:
            raise refuse(where, "expected a text with at least 1 token, got one with none")
        if max(ids) >= vocabulary:
            raise refuse(where, f"expected token ids below {vocabulary}, the tokenizer gave {max(ids)}")
        if len(ids) > max_steps and not truncate:
            hint = "; `truncate` true cuts at the end" if truncate is False else ""
            raise refuse(where, f"expected at most {max_steps} tokens, got {len(ids)}{hint}")
    return [ids[:max_steps] for ids in rows]


def pad_ids(rows: Sequence[Sequence[int]]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """ids [batch, steps], zero beyond each row's length, and lengths [batch]."""
    lengths_B = np.array([len(row) for row in rows], np.int64)
    ids_BT = np.zeros((len(rows), int(lengths_B.max())), np.int64)
    for i, row in enumerate(rows):
        ids_BT[i, : len(row)] = row
    return ids_BT, lengths_B


def _check_unicode(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise refuse(where, f"expected Unicode text, got half a surrogate pair at character {error.start}") from None
