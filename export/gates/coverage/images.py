"""Structured pictures: blank, of every grey, with a single pixel, faint, bright, inverted, sparse, of two values.

Shapes: H height, W width, C channels (absent in grey pictures).
"""

from collections.abc import Iterator

import numpy as np

from export.gates.cases import Array
from export.gates.coverage.row import Row

# More pixels than these are sampled evenly.
MAX_PIXELS = 4096
NUM_TEST_ITEMS = 8
# Neighbouring pixels of a ramp differ by this much; it is odd, so that 256 pixels have every value.
RAMP_STEP = 37


def image_rows(test_images: Array) -> Iterator[Row]:
    """All structured pictures of the shape of the test pictures."""
    shape = test_images.shape[1:]
    for name, image in (
        *_constants(shape),
        *_patterns(shape),
        *_of_test_items(test_images[:NUM_TEST_ITEMS]),
    ):
        yield Row(name=name, inputs={"images": image})
    yield from _single_pixels(shape)


def _constants(shape: tuple[int, ...]) -> Iterator[tuple[str, Array]]:
    """Every value in all pixels, in one channel, and in each pixel beside other values."""
    num_values = int(np.prod(shape))
    for value in range(256):
        yield f"all pixels {value}", np.full(shape, value, np.uint8)
        ramp = (RAMP_STEP * np.arange(num_values) + value) % 256
        yield f"a ramp from {value}", ramp.astype(np.uint8).reshape(shape)
        for channel in range(shape[2] if len(shape) == 3 else 0):
            image = np.zeros(shape, np.uint8)
            image[..., channel] = value
            yield f"channel {channel} of all pixels {value}", image


def _patterns(shape: tuple[int, ...]) -> Iterator[tuple[str, Array]]:
    """Pictures of the values 0 and 255."""
    rng, (rows, columns) = np.random.default_rng(7), np.indices(shape[:2])
    patterns = {
        "a checkerboard": (rows + columns) % 2,
        "an inverted checkerboard": (rows + columns + 1) % 2,
        "horizontal stripes": rows % 2,
        "vertical stripes": columns % 2,
        "the left half": columns < shape[1] // 2,
        "the upper half": rows < shape[0] // 2,
        "a diagonal": rows == columns,
    }
    for share in (0.01, 0.1, 0.5, 0.9):
        patterns[f"{share:.0%} of the pixels at random"] = rng.random(shape[:2]) < share
    for name, pattern in patterns.items():
        image = np.zeros(shape, np.uint8)
        image[pattern.astype(bool)] = 255
        yield name, image


def _of_test_items(images: Array) -> Iterator[tuple[str, Array]]:
    for item, image in enumerate(images):
        wide = image.astype(int)
        changes = {
            "faint": wide // 16,
            "bright": 255 - (255 - wide) // 16,
            "inverted": 255 - wide,
            "of two values": (wide > 127) * 255,
            "of few values": wide // 64 * 64,
            "mirrored": wide[:, ::-1],
            "upside down": wide[::-1],
        }
        for name, values in changes.items():
            yield f"a test picture ({item}), {name}", np.ascontiguousarray(values.astype(np.uint8))


def _single_pixels(shape: tuple[int, ...]) -> Iterator[Row]:
    """Each value of a picture alone at 255, and alone at 0."""
    num_values = int(np.prod(shape))
    for index in np.unique(np.linspace(0, num_values - 1, min(num_values, MAX_PIXELS)).round().astype(int)).tolist():
        image = np.zeros(num_values, np.uint8)
        image[index] = 255
        position = [int(i) for i in np.unravel_index(index, shape)]
        yield Row(name=f"pixel {position} alone at 255", inputs={"images": image.reshape(shape)})
