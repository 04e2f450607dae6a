"""Divergences equal those of scipy, and noise is what samples of one distribution show."""

import math

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import chi2

from service.drift.divergence import chi_squared_quantile, sampling_noise, shannon_distance, stability_index


def counts(*numbers: int) -> np.ndarray:  # type: ignore[type-arg]
    return np.array(numbers, np.int64)


def test_the_index_is_that_of_the_shares() -> None:
    # Siddiqi's formula by hand, of counts that are large beside the half that is added.
    expected = (0.3 - 0.5) * math.log(0.3 / 0.5) + (0.7 - 0.5) * math.log(0.7 / 0.5)
    assert stability_index(counts(500_000, 500_000), counts(300_000, 700_000)) == pytest.approx(expected, rel=1e-4)
    assert stability_index(counts(5, 0, 7), counts(50, 0, 70)) == pytest.approx(0, abs=1e-3)


def test_empty_bins_and_samples_give_finite_numbers() -> None:
    assert 2 < stability_index(counts(100, 0), counts(0, 100)) < 20
    assert stability_index(counts(0, 0), counts(3, 4)) == shannon_distance(counts(1, 0), counts(0, 0)) == 0


def test_the_distance_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        p, q = rng.integers(0, 30, 12), rng.integers(0, 30, 12)
        assert shannon_distance(p, q) == pytest.approx(jensenshannon(p, q, 2))
    assert shannon_distance(counts(4, 0), counts(0, 9)) == 1


@pytest.mark.parametrize("freedom", [3, 9, 11, 19, 99])
@pytest.mark.parametrize("share", [0.95, 0.99, 0.9998])
def test_the_quantile_is_that_of_scipy(freedom: int, share: float) -> None:
    assert chi_squared_quantile(share, freedom) == pytest.approx(chi2.ppf(share, freedom), rel=0.03)


@pytest.mark.parametrize(("reference_rows", "rows"), [(300, 200), (1000, 1000), (1000, 20_000)])
def test_one_in_twenty_samples_of_the_same_distribution_exceeds_its_noise(reference_rows: int, rows: int) -> None:
    rng, shares, above = np.random.default_rng(0), np.full(10, 0.1), 0
    for _ in range(1000):
        reference, sample = rng.multinomial(reference_rows, shares), rng.multinomial(rows, shares)
        above += stability_index(reference, sample) > sampling_noise(reference, sample, probability=0.05)
    assert 25 <= above <= 75


def test_noise_counts_rows_once_and_is_infinite_without_any() -> None:
    reference, sample = counts(50, 50), counts(400, 400)
    assert sampling_noise(reference, sample, probability=0.01, rows=80) > sampling_noise(
        reference, sample, probability=0.01
    )
    assert sampling_noise(reference, counts(0, 0), probability=0.01) == math.inf
    assert sampling_noise(counts(9, 0), counts(4, 0), probability=0.01) == 0
