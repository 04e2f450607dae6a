import io

import numpy as np
import pytest
import torch
from PIL import Image

from training.run import pictures

RNG = np.random.default_rng(0)
CURVE = [{"step": s, "loss": 1 / s, "validation_loss": 1 / s, "validation_accuracy": 1 - 1 / s} for s in (1, 2, 3)]
PICTURES = {
    "curves": lambda: pictures.curves("digits", CURVE, 2),
    "curves of a generator": lambda: pictures.curves("digits", [{"step": 1, "loss": 1.0}], None),
    "confusion": lambda: pictures.confusion("digits", np.array([0, 1, 1]), np.array([0, 1, 0]), ("no", "yes")),
    "images": lambda: pictures.gallery([np.zeros((8, 8), np.uint8)] * 9, ["3 → 5"] * 9),
    "colour": lambda: pictures.gallery([np.zeros((8, 8, 3), np.uint8)], ["cat → dog"]),
    "series": lambda: pictures.gallery([np.ones((3, 7), np.float32)], ["1 → 2"]),
    "no mistake": lambda: pictures.gallery([], []),
    "texts": lambda: pictures.text_table(["costs $5 and $6 " * 30, "short"], ["World → Business", "Sports → World"]),
    "no text": lambda: pictures.text_table([], []),
    "grid": lambda: pictures.grid(torch.arange(12 * 28 * 28).reshape(12, 28, 28).to(torch.uint8)),
}


@pytest.mark.parametrize("name", PICTURES)
def test_picture_is_png_with_reproducible_bytes(name: str) -> None:
    one, other = PICTURES[name](), PICTURES[name]()
    assert one == other
    image = Image.open(io.BytesIO(one))
    assert image.format == "PNG"
    assert image.width > 50
    assert np.ptp(np.asarray(image.convert("L"))) > 50


def test_grid_shows_images_in_order() -> None:
    images = torch.from_numpy(RNG.integers(0, 256, (5, 4, 3), np.uint8))
    canvas = np.asarray(Image.open(io.BytesIO(pictures.grid(images, columns=2, scale=2, gap=1))))[::2, ::2]
    assert canvas.shape == (3 * 5 + 1, 2 * 4 + 1)
    for i, image in enumerate(images.numpy()):
        top, left = 1 + i // 2 * 5, 1 + i % 2 * 4
        np.testing.assert_array_equal(canvas[top : top + 4, left : left + 3], 255 - image)


def test_confusion_rows_are_targets() -> None:
    """Target 1 predicted as 0 is in the second row, so its dark cell is lower than that of target 0 predicted as 1."""
    labels = ("no", "yes")
    one = pictures.confusion("x", np.array([1, 1]), np.array([0, 0]), labels)
    other = pictures.confusion("x", np.array([0, 0]), np.array([1, 1]), labels)
    dark = [np.asarray(Image.open(io.BytesIO(png)).convert("L"))[:, :200] < 120 for png in (one, other)]
    rows = [np.flatnonzero(mask.sum(1) > 40).mean() for mask in dark]
    assert rows[0] > rows[1]
