"""Penalties, bias and log probabilities against their definitions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from service.engine.generation.logits import (
    LogitBias,
    LogitsProcessor,
    MinTokens,
    NotFiniteLogitsError,
    Penalties,
    finite_maxima,
    log_probabilities,
    log_probability,
)

MAX = np.finfo(np.float32).max
some_logits = hnp.arrays(np.float32, 6, elements=st.floats(-50, 50, width=32))
tokens = st.lists(st.integers(0, 5), max_size=12)


def processed(processor: LogitsProcessor, logits: list[float], completion: list[int] | None = None) -> np.ndarray:
    row = np.array(logits, np.float32)
    processor(completion or [], row)
    return row


@given(some_logits, tokens, tokens, st.tuples(st.floats(0.1, 3), st.floats(-2, 2), st.floats(-2, 2)))
def test_penalties_follow_the_definition(
    logits: np.ndarray, prompt: list[int], completion: list[int], parameters: tuple[float, float, float]
) -> None:
    """The row is penalised after each token, as in generation; the last result counts."""
    repetition, presence, frequency = parameters
    penalties = Penalties(prompt, *parameters)
    for size in range(len(completion) + 1):
        actual = processed(penalties, logits.tolist(), completion[:size])
    for token, before in enumerate(logits.tolist()):
        after, num = before, completion.count(token)
        if token in prompt or num:
            after = before / repetition if before > 0 else before * repetition
        assert math.isclose(actual[token], after - frequency * num - presence * (num > 0), rel_tol=1e-6, abs_tol=1e-5)


def test_a_repeated_token_of_the_prompt_is_penalised_once_and_by_repetition_alone() -> None:
    once, often = Penalties([1], 2.0, 1.0, 1.0), Penalties([1] * 5, 2.0, 1.0, 1.0)
    assert processed(often, [3, 3]).tolist() == processed(once, [3, 3]).tolist() == [3, 1.5]
    assert processed(often, [3, -3], [0, 0]).tolist() == [1.5 - 1 - 2, -6]


def test_more_distinct_tokens_than_the_first_buffer_holds() -> None:
    penalties = Penalties(range(100), 2.0, 0.0, 1.0)
    assert processed(penalties, [4.0] * 300, [*range(50, 250), 60]).tolist() == [
        *[2.0] * 50, *[1.0] * 10, 0.0, *[1.0] * 189, *[4.0] * 50
    ]  # fmt: skip


@pytest.mark.parametrize("repetition", [1e-300, 1e300])
def test_penalties_saturate_and_exclude_nothing(repetition: float) -> None:
    assert processed(Penalties([0, 1, 2, 3], repetition, 0, 0), [5, -5, 0, -np.inf, 5]).tolist() == (
        [MAX, 0, 0, -np.inf, 5] if repetition < 1 else [0, -MAX, 0, -np.inf, 5]
    )


def test_bias_is_added_and_excluded_tokens_stay_excluded() -> None:
    assert processed(LogitBias({0: 100, 2: -100.0, 3: 100}), [1, 2, 3, -np.inf]).tolist() == [101, 2, -97, -np.inf]
    assert processed(LogitBias({0: 100, 1: -100}), [MAX, -MAX]).tolist() == [MAX, -MAX]


def test_min_tokens_exclude_the_stop_ids_before_them() -> None:
    processor = MinTokens(2, frozenset({0, 2}))
    for completion in ([], [1]):
        assert processed(processor, [1, 2, 3], completion).tolist() == [-np.inf, 2, -np.inf]
    assert processed(processor, [1, 2, 3], [1, 1]).tolist() == [1, 2, 3]


@given(hnp.arrays(np.float32, st.integers(1, 30), elements=st.floats(-50, 50, width=32)), st.integers(0, 40))
def test_log_probabilities_follow_the_definition(logits: np.ndarray, num_top: int) -> None:
    shifted = [float(value) - float(logits.max()) for value in logits]
    expected = [value - math.log(math.fsum(map(math.exp, shifted))) for value in shifted]
    ranked = sorted(range(logits.size), key=lambda token: (-logits[token], token))[:num_top]
    for token, logprob in enumerate(expected):
        assert math.isclose(log_probability(logits, token), logprob, rel_tol=1e-9, abs_tol=1e-9)
        actual, top = log_probabilities(logits, token, num_top)
        assert actual == log_probability(logits, token)
        assert top == tuple((i, log_probability(logits, i)) for i in ranked)


def test_tokens_without_probability_are_not_among_the_most_probable() -> None:
    logprob, top = log_probabilities(np.array([0, -np.inf, 0, -np.inf], np.float32), 2, 3)
    assert (logprob, top) == (-math.log(2), ((0, -math.log(2)), (2, -math.log(2))))


def test_maxima_are_finite() -> None:
    logits = np.array([[1, -np.inf], [2, 3]], np.float32)
    assert finite_maxima(logits, [4, 5]).tolist() == [1, 3]
    for bad in (np.nan, np.inf):
        logits[1, 0] = bad
        with pytest.raises(NotFiniteLogitsError, match="prompt 1 at position 5 are not finite") as caught:
            finite_maxima(logits, [4, 5])
        assert caught.value.row == 1
    with pytest.raises(NotFiniteLogitsError):
        finite_maxima(np.full((1, 3), -np.inf, np.float32), [0])
