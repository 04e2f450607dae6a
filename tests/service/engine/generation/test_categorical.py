"""Draws at and around every boundary of the distribution, which is computed independently."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from service.engine.generation.categorical import Draw, sample, sample_truncated, uniforms

LARGEST_DRAW = 1 - 2**-53
MARGIN = 1e-9  # draws so close to a boundary may fall to either side

logits_of_some_size = hnp.arrays(np.float32, st.integers(1, 30), elements=st.floats(-50, 50, width=32))
cuts = st.builds(
    lambda **cut: Draw(uniform=0, **cut),
    temperature=st.floats(0.05, 5),
    top_k=st.integers(0, 40),
    top_p=st.floats(0.01, 1),
    min_p=st.floats(0, 1),
)


def params(**changes: float) -> Draw:
    return Draw(**({"uniform": 0, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0} | changes))  # type: ignore[arg-type]


def softmax(logits: np.ndarray, temperature: float) -> list[float]:
    weights = [math.exp((float(value) - float(logits.max())) / temperature) for value in logits]
    return [weight / math.fsum(weights) for weight in weights]


def distribution(logits: np.ndarray, how: Draw) -> list[float]:
    """The distribution by its definition; discards examples where rounding decides what is cut."""
    shares = softmax(logits, how.temperature)
    ranked = sorted(range(logits.size), key=lambda token: (-logits[token], token))[: how.top_k or None]
    total = math.fsum(shares[token] for token in ranked)
    remaining: list[int] = []
    for token in ranked:
        mass = math.fsum(shares[other] for other in remaining)
        assume(how.top_p == 1 or not math.isclose(mass, how.top_p * total, rel_tol=1e-9))
        assume(how.min_p in {0, 1} or not math.isclose(shares[token], how.min_p * shares[ranked[0]], rel_tol=1e-9))
        if mass < how.top_p * total and shares[token] >= how.min_p * shares[ranked[0]]:
            remaining.append(token)
    kept_total = math.fsum(shares[token] for token in remaining)
    return [shares[token] / kept_total if token in remaining else 0.0 for token in range(logits.size)]


def draw_tokens(logits: np.ndarray, how: Draw, draws: list[float]) -> list[int]:
    rows = np.tile(logits, (len(draws), 1))
    function = sample_truncated if how.top_k or how.top_p < 1 or how.min_p else sample
    return function(rows, rows.max(axis=1), [how._replace(uniform=draw) for draw in draws])


def selectable(logits: np.ndarray, **cut: float) -> list[int]:
    """All tokens of evenly spaced draws."""
    return sorted(set(draw_tokens(logits, params(**cut), np.linspace(0, LARGEST_DRAW, 700).tolist())))


@given(logits_of_some_size, cuts)
def test_draws_at_the_boundaries_select_their_tokens(logits: np.ndarray, how: Draw) -> None:
    expected = distribution(logits, how)
    bounds = np.cumsum(expected) / np.sum(expected)
    draws = [
        0.0,
        LARGEST_DRAW,
        *np.clip(bounds - 2 * MARGIN, 0, LARGEST_DRAW),
        *np.clip(bounds + 2 * MARGIN, 0, LARGEST_DRAW),
    ]
    for draw, token in zip(draws, draw_tokens(logits, how, draws), strict=True):
        assert expected[token] > 0 or min(abs(bounds - draw)) < MARGIN
        assert (bounds[token - 1] if token else 0) - MARGIN <= draw <= bounds[token] + MARGIN


def test_top_p_includes_the_token_that_crosses_it() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.2], np.float32))
    for top_p, size in ((0.1, 1), (0.49, 1), (0.51, 2), (0.79, 2), (0.81, 3), (1.0, 3)):
        assert selectable(logits, top_p=top_p) == list(range(size))
        assert selectable(logits, top_p=top_p, top_k=3) == list(range(size))
    assert selectable(logits, top_k=2, top_p=0.6) == [0]  # of what top_k leaves, 0.625


def test_min_p_is_relative_to_the_most_probable_token() -> None:
    logits = np.log(np.array([0.1, 0.5, 0.3, 0.1], np.float32))
    for min_p, tokens in (
        (0.1, [0, 1, 2, 3]),
        (0.19, [0, 1, 2, 3]),
        (0.21, [1, 2]),
        (0.59, [1, 2]),
        (0.61, [1]),
        (1, [1]),
    ):
        assert selectable(logits, min_p=min_p) == tokens
        assert selectable(logits, min_p=min_p, top_k=4) == tokens


def test_equal_logits_rank_by_token_id() -> None:
    flat = np.zeros(6, np.float32)
    assert selectable(flat, top_k=2) == [0, 1]
    assert selectable(flat, top_p=0.4) == [0, 1, 2]
    assert selectable(flat, min_p=1) == [0, 1, 2, 3, 4, 5]
    # Two of four tokens have a mass of exactly 0.5.
    assert selectable(flat[:4], top_p=0.5) == selectable(flat[:4], top_p=0.5, top_k=4) == [0, 1]
    # An unstable sort keeps the order of a few values by chance, but not of 400.
    many = np.zeros(400, np.float32)
    many[300] = 1
    assert selectable(many, top_k=200) == [*range(199), 300]


def test_excluded_tokens_are_never_selected() -> None:
    logits = np.array([-np.inf, 0, -np.inf, 1, -np.inf], np.float32)
    for cut in ({}, {"top_k": 4}, {"top_k": 9}, {"top_p": 0.999}, {"min_p": 1e-9}, {"top_k": 5, "min_p": 1e-300}):
        assert selectable(logits, **cut) == [1, 3]


@pytest.mark.parametrize("temperature", [1e-300, 5e-324])
@pytest.mark.parametrize("cut", [{}, {"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.5}])
def test_the_smallest_temperatures_select_the_most_probable(temperature: float, cut: dict[str, float]) -> None:
    """Every other logit overflows to -inf, of which numpy would warn."""
    logits = np.array([-3e38, 1, 3, 2, 3e38, 5], np.float32)
    assert selectable(logits, temperature=temperature, **cut) == [4]


def test_uniforms_equal_philox_advanced_by_numpy() -> None:
    """Position p is block p of the stream of (seed, choice), which numpy can advance to."""
    for seed, choice, position in ((0, 0, 0), (1, 0, 7), (2**64 - 1, 0, 1000), (5, 3, 9), (2**64 - 1, 2**32, 2**40)):
        expected = []
        for block in range(position, position + 5):
            stream = np.random.Philox(key=np.array([seed, choice], np.uint64))
            stream.advance(block)
            expected.append(np.random.Generator(stream).random())
        assert uniforms(seed, choice, position, 5) == expected
    values = [draw for seed in range(50) for choice in range(2) for draw in uniforms(seed, choice, 0, 100)]
    assert len(set(values)) == len(values)
    assert abs(np.mean(values) - 0.5) < 0.01
    assert 0 <= min(values) <= max(values) < 1
