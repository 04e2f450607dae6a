"""Sampled tokens against a softmax that is computed independently."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from service.engine.generation.sampling import (
    MAX_SEED,
    Sampling,
    log_probability,
    sample,
    sampling_probabilities,
    uniform,
)

CHI_SQUARE_11_AT_1E_6 = 49.8  # 11 degrees of freedom: exceeded once in a million (Abramowitz & Stegun 26.4)
LOGITS = np.array([2.0, 1.0, 0.5, 0.0, 3.0, -1.0, 1.5, 2.5, -0.5, 0.2, 1.1, -2.0], np.float32)

logits_of_some_size = hnp.arrays(np.float32, st.integers(1, 30), elements=st.floats(-50, 50, width=32))
samplings = st.builds(
    Sampling,
    temperature=st.floats(0.05, 5),
    top_k=st.integers(0, 40),
    top_p=st.floats(0.01, 1),
    seed=st.integers(0, MAX_SEED),
)


def params(**changes: float) -> Sampling:
    return Sampling(**({"temperature": 1.0, "top_k": 0, "top_p": 1.0, "seed": 0} | changes))  # type: ignore[arg-type]


def softmax(logits: np.ndarray, temperature: float = 1.0) -> list[float]:
    weights = [math.exp(float(value) / temperature) for value in logits]
    return [weight / math.fsum(weights) for weight in weights]


def chi_square(sampling: Sampling, expected: list[float], draws: int = 20_000) -> float:
    tokens = [sample(LOGITS, sampling, position) for position in range(draws)]
    counts = np.bincount(tokens, minlength=LOGITS.size)
    assert all(count == 0 for count, share in zip(counts, expected, strict=True) if share == 0)
    return sum(
        (count - draws * share) ** 2 / (draws * share) for count, share in zip(counts, expected, strict=True) if share
    )


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_frequencies_follow_the_softmax(temperature: float) -> None:
    expected = softmax(LOGITS, temperature)
    assert chi_square(params(temperature=temperature, seed=7), expected) < CHI_SQUARE_11_AT_1E_6
    assert (
        chi_square(params(temperature=temperature, seed=7), softmax(LOGITS, temperature * 1.2)) > CHI_SQUARE_11_AT_1E_6
    )


def test_frequencies_over_seeds_follow_the_softmax() -> None:
    tokens = [sample(LOGITS, params(seed=seed), 3) for seed in range(20_000)]
    expected = np.array(softmax(LOGITS)) * 20_000
    assert ((np.bincount(tokens, minlength=LOGITS.size) - expected) ** 2 / expected).sum() < CHI_SQUARE_11_AT_1E_6


def test_top_k_keeps_the_proportions_of_the_remaining_tokens() -> None:
    largest = {4, 7, 0, 6}
    shares = [share if token in largest else 0.0 for token, share in enumerate(softmax(LOGITS))]
    expected = [share / sum(shares) for share in shares]
    assert chi_square(params(top_k=4), expected) < CHI_SQUARE_11_AT_1E_6


@given(logits_of_some_size, samplings)
def test_sampling_probabilities_follow_the_definition(logits: np.ndarray, sampling: Sampling) -> None:
    shares = softmax(logits - logits.max(), sampling.temperature)
    ranked = sorted(range(logits.size), key=lambda token: (-logits[token], token))[: sampling.top_k or None]
    total = math.fsum(shares[token] for token in ranked)
    nucleus, mass = [], 0.0
    for token in ranked:
        nucleus.append(token)
        mass += shares[token]
        if mass >= sampling.top_p * total * (1 - 1e-12):
            break
    actual = sampling_probabilities(logits, sampling)
    assert math.isclose(actual.sum(), 1, rel_tol=1e-9)
    differing = {token for token in range(logits.size) if shares[token] and (token in nucleus) != (actual[token] > 0)}
    assert all(
        actual[token] < 1e-9 or shares[token] < 1e-9 or mass_on_edge(sampling, ranked, shares) for token in differing
    )
    assert actual[ranked[0]] > 0
    for token in nucleus:
        share = shares[token] / math.fsum(shares[other] for other in nucleus)
        assert differing or math.isclose(actual[token], share, rel_tol=1e-6, abs_tol=1e-12)


def mass_on_edge(sampling: Sampling, ranked: list[int], shares: list[float]) -> bool:
    """Return whether a prefix of the ranking has top_p of the mass up to rounding, so that either cut is right."""
    mass = np.cumsum([shares[token] for token in ranked])
    return bool(np.isclose(mass / mass[-1], sampling.top_p, rtol=1e-9).any())


def test_top_p_includes_the_token_that_crosses_it() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.2], np.float32))
    for top_p, size in ((0.1, 1), (0.49, 1), (0.51, 2), (0.79, 2), (0.81, 3), (1.0, 3)):
        assert np.count_nonzero(sampling_probabilities(logits, params(top_p=top_p))) == size


def test_equal_logits_rank_by_token_id() -> None:
    flat = np.zeros(6, np.float32)
    assert sampling_probabilities(flat, params(top_k=2)).nonzero()[0].tolist() == [0, 1]
    assert sampling_probabilities(flat, params(top_p=0.4)).nonzero()[0].tolist() == [0, 1, 2]
    # Two of four tokens have a mass of exactly 0.5.
    assert sampling_probabilities(flat[:4], params(top_p=0.5)).nonzero()[0].tolist() == [0, 1]
    # An unstable sort keeps the order of a few values by chance, but not of 1000.
    many = np.zeros(1000, np.float32)
    assert sampling_probabilities(many, params(top_k=500)).nonzero()[0].tolist() == list(range(500))
    assert sample(flat, params(temperature=0.0), 0) == 0


@given(logits_of_some_size, samplings, st.integers(0, 1000))
def test_a_token_has_positive_probability_and_is_reproducible(
    logits: np.ndarray, sampling: Sampling, position: int
) -> None:
    token = sample(logits, sampling, position)
    assert sampling_probabilities(logits, sampling)[token] > 0 or sampling.top_k == 1
    assert sample(logits.copy(), sampling, position) == token


@given(logits_of_some_size, st.integers(0, MAX_SEED))
def test_temperature_0_or_top_k_1_selects_the_most_probable(logits: np.ndarray, seed: int) -> None:
    best = int(np.argmax(logits))
    assert sample(logits, params(temperature=0.0, seed=seed), 5) == best
    assert sample(logits, params(top_k=1, seed=seed), 5) == best
    assert logits[sample(logits, params(temperature=1e-300, seed=seed), 5)] == logits[best]


def test_the_smallest_temperature_selects_the_most_probable() -> None:
    """Every other logit overflows to -inf, of which numpy would warn."""
    assert sample(LOGITS, params(temperature=5e-324), 0) == int(LOGITS.argmax())
    assert sampling_probabilities(LOGITS, params(temperature=5e-324)).max() == 1


def test_every_seed_of_64_bits_is_accepted() -> None:
    assert params(seed=2**64 - 1).seed == 2**64 - 1
    with pytest.raises(ValueError, match="seed"):
        params(seed=2**64)


def test_uniform_equals_philox_advanced_by_numpy() -> None:
    """Position p is block p of the seed's Philox stream, which numpy can advance to."""
    for seed, position in ((0, 0), (1, 7), (MAX_SEED, 1000)):
        stream = np.random.Philox(key=seed)
        stream.advance(position)
        assert uniform(seed, position) == np.random.Generator(stream).random()
    values = [uniform(seed, position) for seed in range(100) for position in range(100)]
    assert len(set(values)) == len(values)
    assert abs(np.mean(values) - 0.5) < 0.01
    assert 0 <= min(values) <= max(values) < 1


@given(logits_of_some_size)
def test_log_probability_ignores_sampling_parameters(logits: np.ndarray) -> None:
    shifted = [float(value) - float(logits.max()) for value in logits]
    total = math.log(math.fsum(math.exp(value) for value in shifted))
    for token, value in enumerate(shifted):
        assert math.isclose(log_probability(logits, token), value - total, rel_tol=1e-9, abs_tol=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": -0.1}, r"temperature\n.*input_value=-0\.1,"),
        ({"temperature": math.nan}, r"temperature\n.*input_value=nan,"),
        ({"temperature": math.inf}, r"temperature\n.*input_value=inf,"),
        ({"top_k": -1}, r"top_k\n.*input_value=-1,"),
        ({"top_p": 0.0}, r"top_p\n.*input_value=0\.0,"),
        ({"top_p": 1.01}, r"top_p\n.*input_value=1\.01,"),
        ({"seed": -1}, r"seed\n.*input_value=-1,"),
        ({"seed": MAX_SEED + 1}, f"seed\n.*less than or equal to {MAX_SEED} .*input_value={MAX_SEED + 1},"),
    ],
)
def test_parameters_out_of_range_are_named(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        params(**change)
