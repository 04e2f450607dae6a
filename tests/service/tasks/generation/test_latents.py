"""Latents are normal, cut where asked, and independent of their number; interpolations keep their ends and norms."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.tasks.generation.latents import MAX_SEED, MIN_TRUNCATION, interpolate_latents, sample_latents


def test_latents_are_standard_normal_and_rows_independent() -> None:
    many = sample_latents(1, 400, 50)
    assert many.dtype == np.float32
    assert abs(many.mean()) < 0.03
    assert abs(many.std() - 1) < 0.03
    assert len(np.unique(many[:, 0])) == 400
    assert np.array_equal(sample_latents(1, 2, 50), many[:2])
    assert not np.array_equal(sample_latents(2, 2, 50), many[:2])


@given(st.integers(0, MAX_SEED), st.integers(1, 6), st.sampled_from([None, MIN_TRUNCATION, 0.5, 2.0]))
def test_a_latent_is_the_same_whatever_the_count(seed: int, count: int, truncation: float | None) -> None:
    latents = sample_latents(seed, count, 7, truncation)
    for i in range(count):
        assert np.array_equal(sample_latents(seed, i + 1, 7, truncation)[i], latents[i])


def test_a_truncation_cuts_the_normal_distribution() -> None:
    """The variance of a normal distribution cut at ±c is 1 - 2c φ(c) / (2 Φ(c) - 1)."""
    for truncation in (0.1, 0.5, 1.0, 2.0):
        latents = sample_latents(3, 200, 100, truncation)
        assert np.abs(latents).max() <= truncation
        density = math.exp(-(truncation**2) / 2) / math.sqrt(2 * math.pi)
        variance = 1 - 2 * truncation * density / math.erf(truncation / math.sqrt(2))
        assert latents.var() == pytest.approx(variance, rel=0.03)
        assert abs(latents.mean()) < 0.02 * truncation
        # Numbers inside are those of the image without truncation.
        free = sample_latents(3, 200, 100)
        inside = np.abs(free) <= truncation
        assert np.array_equal(latents[inside], free[inside])


@given(st.integers(0, MAX_SEED), st.integers(0, MAX_SEED), st.integers(2, 9))
def test_an_interpolation_turns_from_one_end_to_the_other(seed: int, seed_to: int, steps: int) -> None:
    [first], [last] = sample_latents(seed, 1, 20), sample_latents(seed_to, 1, 20)
    path = interpolate_latents(first, last, steps)
    assert (path.dtype, path.shape) == (np.float32, (steps, 20))
    assert np.array_equal(path[0], first)
    assert np.array_equal(path[-1], last)
    # Seen as directions of unit norm, equal angles lie between neighbours.
    a, b = first / np.linalg.norm(first), last / np.linalg.norm(last)
    norms = [np.linalg.norm(first), np.linalg.norm(last)]
    assert all(min(norms) * 0.9 <= np.linalg.norm(latent) <= max(norms) * 1.1 for latent in path)
    unit = interpolate_latents(a, b, steps).astype(np.float64)
    cosines = (unit[:-1] * unit[1:]).sum(axis=1)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(cosines, np.cos(np.arccos(np.clip(a @ b, -1, 1)) / (steps - 1)), atol=1e-5)


@pytest.mark.parametrize(
    ("last", "middle"), [([3, 4], [3, 4]), ([6, 8], [4.5, 6]), ([-3, -4], [0, 0]), ([0, 0], [1.5, 2])]
)
def test_latents_without_an_angle_are_interpolated_linearly(last: list[float], middle: list[float]) -> None:
    path = interpolate_latents(np.array([3, 4], np.float32), np.array(last, np.float32), 3)
    assert path.tolist() == [[3, 4], middle, last]
