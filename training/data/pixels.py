"""Mean and deviation of images, as a model's first layer wants them: of pixel / 255, one number a channel.

They are counted exactly from the 256 values a pixel can have, so the order of the images changes nothing.
"""

import numpy as np
import numpy.typing as npt


def statistics(images: npt.NDArray[np.uint8]) -> dict[str, list[float]]:
    """`{"mean": [...], "std": [...]}` of images [items, height, width] or [items, height, width, channels]."""
    channels = [images] if images.ndim == 3 else [images[..., i] for i in range(images.shape[-1])]
    value = np.arange(256) / 255
    means, deviations = [], []
    for channel in channels:
        share = np.bincount(np.ravel(channel), minlength=256) / channel.size
        mean = float(share @ value)
        means.append(round(mean, 4))
        deviations.append(round(float(share @ (value - mean) ** 2) ** 0.5, 4))
    return {"mean": means, "std": deviations}
