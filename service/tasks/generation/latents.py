"""Draw the latents of images from seeds, and interpolate between them.

Invariant: the latent of an image depends only on its seed, its index and the truncation, so image i of a seed is the
same whatever the number of images.

Shapes: B images, Z size of a latent.
"""

import numpy as np
import numpy.typing as npt

Latents = npt.NDArray[np.float32]
# The largest integer that every JSON parser represents exactly.
MAX_SEED = 2**53 - 1
# A latent of 100 numbers takes about 60 draws; a lower one takes in inverse proportion more.
MIN_TRUNCATION = 0.1
# The weights of an interpolation divide by the sine of the angle between the latents.
MIN_SINE = 1e-6


def sample_latents(seed: int, count: int, size: int, truncation: float | None = None) -> Latents:
    """Sample standard normal float32 [count, size]; only (seed, i) and the truncation determine row i.

    Numbers whose magnitude is above the truncation are drawn again (the truncation trick of Brock et al. 2019).
    """
    latents_BZ = np.empty((count, size), np.float32)
    for i, latent_Z in enumerate(latents_BZ):
        generator = np.random.Generator(np.random.Philox(key=[seed, i]))
        latent_Z[:] = generator.standard_normal(size, np.float32)
        while truncation is not None and (outside := np.flatnonzero(np.abs(latent_Z) > truncation)).size:
            latent_Z[outside] = generator.standard_normal(outside.size, np.float32)
    return latents_BZ


def interpolate_latents(first_Z: Latents, last_Z: Latents, steps: int) -> Latents:
    """Return float32 [steps, Z]: both ends and the points between them at equal angles.

    Spherical interpolation keeps the norms that a generator was trained with (White 2016); latents in one or opposite
    directions are interpolated linearly.
    """
    first, last = first_Z.astype(np.float64), last_Z.astype(np.float64)
    shares_B1 = np.linspace(0, 1, steps)[:, None]
    norms = np.linalg.norm(first) * np.linalg.norm(last)
    angle = np.arccos(np.clip(first @ last / norms, -1, 1)) if norms else 0.0
    if np.sin(angle) < MIN_SINE:
        return ((1 - shares_B1) * first + shares_B1 * last).astype(np.float32)
    weights_B1, weights_of_last_B1 = np.sin((1 - shares_B1) * angle), np.sin(shares_B1 * angle)
    return ((weights_B1 * first + weights_of_last_B1 * last) / np.sin(angle)).astype(np.float32)
