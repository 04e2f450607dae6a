"""Check and change logits before tokens are sampled, and compute log probabilities.

Invariant: a processor changes a row by its own prompt and completion alone, so that company changes nothing. Finite
logits stay finite unless a processor excludes their token with -inf; -inf stays -inf.

Shapes: B rows, V vocabulary, N tokens that a processor names.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.float32]
MAX_LOGIT = float(np.finfo(np.float32).max)


class NotFiniteLogitsError(ArithmeticError):
    """The row with this index has a logit that is NaN or +inf, or none that is finite."""

    def __init__(self, row: int, position: int) -> None:
        super().__init__(f"the logits of prompt {row} at position {position} are not finite")
        self.row = row


class LogitsProcessor(Protocol):
    """A change of the logits of one row; structured output, for example, excludes the tokens that break its grammar."""

    def __call__(self, completion: Sequence[int], logits_V: Logits, /) -> None:
        """Change `logits_V` in place; `completion` are the tokens sampled so far."""


class Penalties:
    """Make tokens less probable that occurred before.

    The repetition penalty divides positive logits by it and multiplies negative ones, once for each distinct token of
    the prompt and the completion (Keskar et al. 2019, as transformers has it). Then `presence` is subtracted once, and
    `frequency` as often as the token occurs in the completion (as OpenAI's API has it).
    """

    def __init__(self, prompt: Sequence[int], repetition: float, presence: float, frequency: float) -> None:
        self._repetition, self._presence, self._frequency = repetition, presence, frequency
        self._num_counted = 0
        self._slots: dict[int, int] = {}
        self._ids_N = np.empty(64, np.int64)
        self._counts_N = np.zeros(64)
        if repetition != 1:
            for token in prompt:
                self._slot(int(token))

    def __call__(self, completion: Sequence[int], logits_V: Logits, /) -> None:
        for token in completion[self._num_counted :]:
            slot = self._slot(token)
            self._counts_N[slot] += 1
        self._num_counted = len(completion)
        ids_N, counts_N = self._ids_N[: len(self._slots)], self._counts_N[: len(self._slots)]
        before_N = logits_V[ids_N].astype(np.float64)
        with np.errstate(over="ignore"):
            after_N = np.where(before_N > 0, before_N / self._repetition, before_N * self._repetition)
        after_N -= self._presence * (counts_N > 0) + self._frequency * counts_N
        logits_V[ids_N] = _saturated(before_N, after_N)

    def _slot(self, token: int) -> int:
        """Return the index of the token in `_ids_N`, where its number in the completion has the same index."""
        slot = self._slots.setdefault(token, len(self._slots))
        if slot == self._ids_N.size:
            self._ids_N = np.concatenate([self._ids_N, np.empty_like(self._ids_N)])
            self._counts_N = np.concatenate([self._counts_N, np.zeros_like(self._counts_N)])
        self._ids_N[slot] = token
        return slot


class LogitBias:
    """Add a number to the logits of some tokens."""

    def __init__(self, bias: Mapping[int, float]) -> None:
        self._ids_N = np.array(list(bias), np.int64)
        self._bias_N = np.array(list(bias.values()), np.float64)

    def __call__(self, _completion: Sequence[int], logits_V: Logits, /) -> None:
        before_N = logits_V[self._ids_N].astype(np.float64)
        logits_V[self._ids_N] = _saturated(before_N, before_N + self._bias_N)


class MinTokens:
    """Exclude the ids that end a completion until it has a number of tokens."""

    def __init__(self, min_tokens: int, stop_ids: frozenset[int]) -> None:
        self._min_tokens = min_tokens
        self._ids_N = np.array(sorted(stop_ids), np.int64)

    def __call__(self, completion: Sequence[int], logits_V: Logits, /) -> None:
        if len(completion) < self._min_tokens:
            logits_V[self._ids_N] = -np.inf


def finite_maxima(logits_BV: Logits, positions: Sequence[int]) -> Logits:
    """Return the maximum of each row: NaN or +inf if any logit is, -inf if all are; NotFiniteLogitsError for these."""
    maxima_B: Logits = logits_BV.max(axis=1)
    is_finite_B = np.isfinite(maxima_B)
    if not is_finite_B.all():
        row = int(is_finite_B.argmin())
        raise NotFiniteLogitsError(row, positions[row])
    return maxima_B


def log_probability(logits_V: Logits, token: int) -> float:
    """Return the natural logarithm of the token's softmax, before temperature, top_k and top_p."""
    return float(_log_softmax(logits_V)[token])


def log_probabilities(logits_V: Logits, token: int, num_top: int) -> tuple[float, tuple[tuple[int, float], ...]]:
    """Return `log_probability` of the token, and ids and log probabilities of at most `num_top` most probable tokens.

    Equal logits rank by token id, lowest first; tokens with a probability of 0 are left out.
    """
    logprobs_V = _log_softmax(logits_V)
    if num_top == 0:
        return float(logprobs_V[token]), ()
    cut = np.partition(logits_V, -num_top)[-num_top] if num_top < logits_V.size else -np.inf
    candidates = np.flatnonzero(logits_V >= cut)
    ranked = candidates[np.argsort(-logits_V[candidates], kind="stable")[:num_top]]
    top = tuple((int(i), float(logprobs_V[i])) for i in ranked if logits_V[i] > -np.inf)
    return float(logprobs_V[token]), top


def _log_softmax(logits_V: Logits) -> npt.NDArray[np.float64]:
    shifted_V = logits_V.astype(np.float64) - float(logits_V.max())
    return shifted_V - np.log(np.exp(shifted_V).sum())


def _saturated(before_N: npt.NDArray[np.float64], after_N: npt.NDArray[np.float64]) -> Logits:
    """Return `after_N` in float32, no finite logit beyond its range, and -inf where it was."""
    return np.where(before_N == -np.inf, -np.inf, np.clip(after_N, -MAX_LOGIT, MAX_LOGIT)).astype(np.float32)
