"""Image i of a seed is the same whatever the number of images."""

import numpy as np

from service.tasks.generation.images import sample_latents


def test_latents_are_standard_normal_and_rows_independent() -> None:
    many = sample_latents(1, 400, 50)
    assert many.dtype == np.float32
    assert abs(many.mean()) < 0.03
    assert abs(many.std() - 1) < 0.03
    assert len(np.unique(many[:, 0])) == 400
    assert np.array_equal(sample_latents(1, 2, 50), many[:2])
    assert not np.array_equal(sample_latents(2, 2, 50), many[:2])
