import numpy as np
import pytest

from training.data.pixels import statistics


@pytest.mark.parametrize("shape", [(50, 7, 5), (50, 7, 5, 3)])
def test_mean_and_deviation_are_numpys(shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    found = statistics(images)
    over = (0, 1, 2)
    np.testing.assert_allclose(found["mean"], np.ravel((images / 255).mean(over)), atol=6e-5)
    np.testing.assert_allclose(found["std"], np.ravel((images / 255).std(over)), atol=6e-5)
