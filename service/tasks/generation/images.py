"""Draws images from latents. Invariant: image i of a seed is the same whatever the number of images."""

import numpy as np
import numpy.typing as npt

from service.engine.context import RequestContext
from service.engine.runner import Runner
from service.engine.sessions.model import Model
from service.tasks.faults import type_fault


def sample_latents(seed: int, count: int, size: int) -> npt.NDArray[np.float32]:
    """Sample standard normal float32 [count, size]; only (seed, i) determines row i."""
    rows = [np.random.Generator(np.random.Philox(key=[seed, i])) for i in range(count)]
    return np.stack([row.standard_normal(size, np.float32) for row in rows])


async def draw_images(
    model: Model, runner: Runner, count: int, seed: int, context: RequestContext
) -> npt.NDArray[np.uint8]:
    """Return `count` images as uint8 [count, height, width(, 3)]. Raises EkibenError."""
    if count > model.manifest.limits.max_items:
        raise type_fault("/count", f"a count of 1 to {model.manifest.limits.max_items}", count)
    [spec] = model.manifest.inputs  # float32 [batch, size]: see `is_latent_generator`
    size = spec.shape[1]
    assert isinstance(size, int)
    latents = sample_latents(seed, count, size)
    outputs = await runner.run(model.session, {"latents": latents}, ["images"], context=context, items="/images")
    return outputs["images"]
