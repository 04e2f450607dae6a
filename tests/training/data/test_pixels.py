import numpy as np
import pytest

from training.data.pixels import statistics


@pytest.mark.parametrize("shape", [(50, 7, 5), (50, 7, 5, 3)])
def test_statistics_match_numpy(shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    actual = statistics(images)
    axes = (0, 1, 2)
    np.testing.assert_allclose(actual["mean"], np.ravel((images / 255).mean(axes)), atol=6e-5)
    np.testing.assert_allclose(actual["std"], np.ravel((images / 255).std(axes)), atol=6e-5)
