"""Texts to token ids.

Invariant: every row has 1 to `max_steps` ids and each id is below the vocabulary's size; a text is shortened only if
the client asked for it.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from service.engine.context import RequestContext
from service.engine.runner import Runner
from service.errors import EkibenError
from service.tasks.body import refuse, wrong

MAX_CHARS_PER_STEP = 100  # a text beyond is too long whatever its tokens are
QUICK_CHARS = 8_192  # tokenized in about 2 ms


async def tokenize(
    texts: Mapping[str, Any],
    tokenizer: Tokenizer,
    runner: Runner,
    context: RequestContext,
    *,
    vocabulary: int,
    max_steps: int,
    truncate: bool | None = None,
) -> list[list[int]]:
    """The ids of each text, which stands under its JSON pointer. Raises the first error of `tokenize_each`.

    More than QUICK_CHARS characters are work for the runner, where some of them at a time take their turn among what
    others have asked for.
    """
    read = partial(tokenize_each, tokenizer=tokenizer, vocabulary=vocabulary, max_steps=max_steps, truncate=truncate)
    is_quick = sum(map(_num_chars, texts.values())) <= QUICK_CHARS
    rows = []
    for portion in [texts] if is_quick else _portions(texts):
        for row in read(portion) if is_quick else await runner.call(read, portion, context=context):
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


def _portions(texts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The texts in order, in portions of QUICK_CHARS characters at most or of one text."""
    portions: list[dict[str, Any]] = [{}]
    left = QUICK_CHARS
    for where, text in texts.items():
        if _num_chars(text) > left and portions[-1]:
            portions.append({})
            left = QUICK_CHARS
        portions[-1][where] = text
        left -= _num_chars(text)
    return portions


def _num_chars(text: Any) -> int:
    return len(text) if isinstance(text, str) else 0


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
