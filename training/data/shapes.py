"""Drawn shapes: ten classes of 32 x 32 colour images in the form of CIFAR-10.

Colour, position, size and rotation of a shape are random; it is lighter than its background, which has a gradient, a
spot and noise. Only the outline depends on the class. The same seed draws the same images.

Legend: N images, Y and X pixels, C channels.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]

SIDE = 32


def draw(count: int, *, seed: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """`count` images [N, Y, X, C] and their classes, which are equally frequent."""
    rng = np.random.default_rng(seed)
    targets = rng.permutation(np.arange(count, dtype=np.int64) % len(SHAPES))
    x_NYX, y_NYX = _shape_coordinates(count, rng)
    inside_NYX = np.empty((count, SIDE, SIDE), np.float32)
    for label, outline in enumerate(SHAPES.values()):
        of_label = targets == label
        inside_NYX[of_label] = outline(x_NYX[of_label], y_NYX[of_label])
    background_NYXC, colour_NC = _background_and_colour(count, rng)
    # The edges are soft, half a pixel wide.
    cover_NYX1 = np.clip(inside_NYX * 4 + 0.5, 0, 1)[..., None]
    images_NYXC = background_NYXC * (1 - cover_NYX1) + colour_NC[:, None, None, :] * cover_NYX1
    images_NYXC += rng.standard_normal(images_NYXC.shape, np.float32) * rng.uniform(2, 9, (count, 1, 1, 1)).astype(
        np.float32
    )
    return np.clip(images_NYXC, 0, 255).astype(np.uint8), targets


def _shape_coordinates(count: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Pixel coordinates in the frame of the shape: centred at 0, radius about 1, rotated by up to 12 degrees."""
    size, angle = rng.uniform(8, 13, (count, 1, 1)), np.radians(rng.uniform(-12, 12, (count, 1, 1)))
    max_offset = SIDE / 2 - size * 0.9
    centre_x, centre_y = (SIDE / 2 - 0.5 + rng.uniform(-1, 1, (count, 1, 1)) * max_offset for _ in range(2))
    grid_Y, grid_X = np.mgrid[0:SIDE, 0:SIDE]
    right, down = (grid_X - centre_x) / size, (grid_Y - centre_y) / size
    x_NYX = np.cos(angle) * right + np.sin(angle) * down
    y_NYX = np.cos(angle) * down - np.sin(angle) * right
    return x_NYX.astype(np.float32), y_NYX.astype(np.float32)


def _background_and_colour(count: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """A background gradient with a square spot, and a colour lighter than its base by 90 of 255 or more per channel."""
    base_NC = rng.uniform(10, 120, (count, 3))
    colour_NC = rng.uniform(base_NC + 90, 255)
    slope_NC = rng.uniform(-1.2, 1.2, (count, 2, 3))
    offsets = np.arange(SIDE) - SIDE / 2
    background_NYXC = base_NC[:, None, None, :] + offsets[:, None, None] * slope_NC[:, None, None, 0]
    background_NYXC = background_NYXC + offsets[None, :, None] * slope_NC[:, None, None, 1]
    row, column = rng.integers(0, SIDE - 2, (2, count))
    spot_NC = rng.uniform(0, 255, (count, 3))
    for step in range(4):
        background_NYXC[np.arange(count), row + step // 2, column + step % 2] = spot_NC
    return background_NYXC.astype(np.float32), colour_NC.astype(np.float32)


def _polygon(corners: int, x: Floats, y: Floats) -> Floats:
    """A regular polygon with a corner at the top: positive on the inner side of every edge."""
    angles = np.pi * (2 * np.arange(corners) + 1) / corners
    edges = [np.cos(np.pi / corners) - (x * np.sin(a) - y * np.cos(a)) for a in angles]
    return np.minimum.reduce(edges)


def _disc(x: Floats, y: Floats) -> Floats:
    return 0.9 - np.hypot(x, y)


def _ring(x: Floats, y: Floats) -> Floats:
    return 0.2 - np.abs(np.hypot(x, y) - 0.75)


def _triangle(x: Floats, y: Floats) -> Floats:
    return _polygon(3, x, y)


def _square(x: Floats, y: Floats) -> Floats:
    return 0.75 - np.maximum(np.abs(x), np.abs(y))


def _star(x: Floats, y: Floats) -> Floats:
    """A six-pointed star: two overlaid triangles."""
    return np.maximum(_polygon(3, x, y), _polygon(3, x, -y))


def _cross(x: Floats, y: Floats) -> Floats:
    wide = np.minimum(0.95 - np.abs(x), 0.28 - np.abs(y))
    return np.maximum(wide, np.minimum(0.95 - np.abs(y), 0.28 - np.abs(x)))


def _crescent(x: Floats, y: Floats) -> Floats:
    return np.minimum(0.95 - np.hypot(x, y), np.hypot(x - 0.5, y) - 0.75)


def _frame(x: Floats, y: Floats) -> Floats:
    return 0.18 - np.abs(np.maximum(np.abs(x), np.abs(y)) - 0.68)


def _bars(x: Floats, y: Floats) -> Floats:
    """Two horizontal bars."""
    return np.minimum(0.9 - np.abs(x), 0.22 - np.abs(np.abs(y) - 0.55))


def _arrow(x: Floats, y: Floats) -> Floats:
    """An arrow that points up."""
    head = np.minimum(0.05 - y, (y + 1) - np.abs(x) * 1.2)
    return np.maximum(head, np.minimum(0.22 - np.abs(x), 0.95 - np.abs(y)))


SHAPES: dict[str, Callable[[Floats, Floats], Floats]] = {
    "arrow": _arrow,
    "bars": _bars,
    "crescent": _crescent,
    "cross": _cross,
    "disc": _disc,
    "frame": _frame,
    "ring": _ring,
    "square": _square,
    "star": _star,
    "triangle": _triangle,
}
