"""The mean and standard deviation of pixel / 255 per channel, with which a model's first layer normalizes.

Both are computed from the histogram of the 256 pixel values, so they do not depend on the order of the images.
"""

import numpy as np
import numpy.typing as npt


def statistics(images: npt.NDArray[np.uint8]) -> dict[str, list[float]]:
    """`{"mean": [...], "std": [...]}` of images [items, height, width] or [items, height, width, channels]."""
    channels = [images] if images.ndim == 3 else [images[..., i] for i in range(images.shape[-1])]
    value = np.arange(256) / 255
    means, stds = [], []
    for channel in channels:
        share = np.bincount(np.ravel(channel), minlength=256) / channel.size
        mean = float(share @ value)
        means.append(round(mean, 4))
        stds.append(round(float(share @ (value - mean) ** 2) ** 0.5, 4))
    return {"mean": means, "std": stds}
