# mypy: ignore-errors
# ruff: noqa
"""Temporary."""

from dataclasses import dataclass

from service.engine.generation.sampling import Sampling as Sampling
from service.engine.generation.sampling import log_probability, sample


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    id: int
    logprob: float | None
    top: tuple[tuple[int, float], ...] = ()


def token_logprob(logits_V, token, num_top):
    return TokenLogprob(token, log_probability(logits_V, token))


class RowSampler:
    def __init__(self, sampling, *, prompt, choice=0, stop_ids=frozenset(), num_logprobs=None, processors=()):
        self.sampling, self.num_logprobs = sampling, num_logprobs


def sample_rows(logits_BV, rows, positions):
    out = []
    for logits_V, row, position in zip(logits_BV, rows, positions, strict=True):
        token = sample(logits_V, row.sampling, position)
        out.append(TokenLogprob(token, None if row.num_logprobs is None else log_probability(logits_V, token)))
    return out
