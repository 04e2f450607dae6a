"""Augmentations: what a batch may look like without meaning anything else.

They work on raw inputs (uint8 pixels, unscaled series) and draw from the generator they are given, so that a step's
batch is a function of the seed and the step.
"""

import torch
from torch import Generator, Tensor
from torch.nn.functional import pad

from training.recipe import Augment


def jitter(*, shift: int, mirror: bool = False) -> Augment:
    """Move each image by up to `shift` pixels each way, black coming in, and mirror half of them if `mirror`."""

    def augment(inputs: dict[str, Tensor], generator: Generator) -> dict[str, Tensor]:
        images = inputs["images"]
        num_items, height, width = images.shape[:3]
        margin = (shift, shift, shift, shift) if images.dim() == 3 else (0, 0, shift, shift, shift, shift)
        down, right = torch.randint(0, 2 * shift + 1, (2, num_items, 1), generator=generator)
        rows_BH, columns_BW = torch.arange(height) + down, torch.arange(width) + right
        if mirror:
            flipped = torch.rand(num_items, 1, generator=generator) < 0.5
            columns_BW = torch.where(flipped, columns_BW.flip(1), columns_BW)
        items = torch.arange(num_items)[:, None, None]
        return {**inputs, "images": pad(images, margin)[items, rows_BH[:, :, None], columns_BW[:, None, :]]}

    return augment


def noise(deviation: float) -> Augment:
    """Add Gaussian noise of `deviation` times the batch's own deviation, channel by channel."""

    def augment(inputs: dict[str, Tensor], generator: Generator) -> dict[str, Tensor]:
        series_BTC = inputs["series"]
        scale_C = series_BTC.flatten(0, 1).std(0) * deviation
        drawn = torch.randn(series_BTC.shape, generator=generator)
        return {**inputs, "series": series_BTC + drawn * scale_C}

    return augment


def forget_words(share: float) -> Augment:
    """Replace each token, with probability `share`, by the unknown word (token 1); padding stays (token 0)."""

    def augment(inputs: dict[str, Tensor], generator: Generator) -> dict[str, Tensor]:
        ids = inputs["ids"]
        forgotten = (torch.rand(ids.shape, generator=generator) < share) & (ids != 0)
        return {**inputs, "ids": ids.masked_fill(forgotten, 1)}

    return augment
