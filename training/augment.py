"""Augmentations: random changes of a batch that leave its targets valid.

They change raw inputs (uint8 pixels, unscaled series) and draw from the generator that the caller passes, so a step's
batch is a function of the seed and the step.
"""

import torch
from torch import Generator, Tensor
from torch.nn.functional import pad

from training.recipe import Augment


def random_shift(*, max_pixels: int, flip: bool = False) -> Augment:
    """Shift each image by up to `max_pixels` along both axes, filling with black; `flip` mirrors half of the images."""

    def augment(inputs: dict[str, Tensor], generator: Generator) -> dict[str, Tensor]:
        images = inputs["images"]
        num_items, height, width = images.shape[:3]
        margin = (max_pixels,) * 4 if images.dim() == 3 else (0, 0, *(max_pixels,) * 4)
        down, right = torch.randint(0, 2 * max_pixels + 1, (2, num_items, 1), generator=generator)
        rows_BH, columns_BW = torch.arange(height) + down, torch.arange(width) + right
        if flip:
            flipped = torch.rand(num_items, 1, generator=generator) < 0.5
            columns_BW = torch.where(flipped, columns_BW.flip(1), columns_BW)
        items = torch.arange(num_items)[:, None, None]
        return {**inputs, "images": pad(images, margin)[items, rows_BH[:, :, None], columns_BW[:, None, :]]}

    return augment


def gaussian_noise(relative_std: float) -> Augment:
    """Add Gaussian noise; per channel, its standard deviation is `relative_std` times that of the batch."""

    def augment(inputs: dict[str, Tensor], generator: Generator) -> dict[str, Tensor]:
        series_BTC = inputs["series"]
        std_C = series_BTC.flatten(0, 1).std(0) * relative_std
        noise_BTC = torch.randn(series_BTC.shape, generator=generator)
        return {**inputs, "series": series_BTC + noise_BTC * std_C}

    return augment


def word_dropout(probability: float) -> Augment:
    """Replace each token, with `probability`, by the unknown word (token 1); padding (token 0) is unchanged."""

    def augment(inputs: dict[str, Tensor], generator: Generator) -> dict[str, Tensor]:
        ids = inputs["ids"]
        dropped = (torch.rand(ids.shape, generator=generator) < probability) & (ids != 0)
        return {**inputs, "ids": ids.masked_fill(dropped, 1)}

    return augment
