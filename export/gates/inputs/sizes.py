"""The sizes of free axes at which a model is tried: both ends of each, a few between, and random ones.

Steps of ragged rows and of texts are not among them: every row has its own length there, up to the longest. All rows of
a batch have the same size of every other free axis.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from service.contract.heads import LanguageModelHead
from service.manifest import AxisRange, Manifest

Sizes = Mapping[str, int]
# Sizes between the smallest and the largest of all axes together.
NUM_BETWEEN = 3
# An axis of at most this many sizes is tried at every one of them, a longer one at as many.
MAX_SIZES = 24


def longest_row(manifest: Manifest) -> int | None:
    """The most steps of a row, for models whose rows have lengths of their own; None for others."""
    has_lengths = manifest.is_ragged or isinstance(manifest.head, LanguageModelHead)
    return manifest.limits.max_steps if has_lengths else None


def free_axes(manifest: Manifest) -> dict[str, AxisRange]:
    """The other free axes of a row, with their bounds."""
    if isinstance(manifest.head, LanguageModelHead):
        return {}
    names = dict.fromkeys(axis for spec in manifest.inputs for axis in spec.row_shape if isinstance(axis, str))
    return {axis: manifest.limits.axis_range(axis) for axis in names if not (axis == "steps" and manifest.is_ragged)}


def grid_sizes(manifest: Manifest) -> list[Sizes]:
    """All axes smallest, between and largest, and each largest with the others smallest; [{}] without free axes."""
    axes = free_axes(manifest)
    ladders = {axis: np.geomspace(one.min, one.max, NUM_BETWEEN + 2).round() for axis, one in axes.items()}
    sizes: list[Sizes] = [
        {axis: one.clip(int(ladders[axis][step])) for axis, one in axes.items()} for step in range(NUM_BETWEEN + 2)
    ]
    if len(axes) > 1:
        sizes += [{axis: one.max if axis == long else one.min for axis, one in axes.items()} for long in axes]
    return [size for i, size in enumerate(sizes) if size not in sizes[:i]]


def smallest_sizes(manifest: Manifest) -> Sizes:
    return {axis: one.min for axis, one in free_axes(manifest).items()}


def draw_sizes(manifest: Manifest, rng: np.random.Generator) -> Sizes:
    """Random sizes within the bounds, small ones more often. Draws nothing if no axis is free."""
    return {axis: _draw(one, rng) for axis, one in free_axes(manifest).items()}


def every_size(manifest: Manifest, rng: np.random.Generator) -> Iterator[tuple[str, Sizes]]:
    """Each free axis at its sizes, the other axes at random ones; with the name of the axis."""
    for axis, one in free_axes(manifest).items():
        spread = [one.clip(int(size)) for size in np.geomspace(one.min, one.max, MAX_SIZES).round()]
        for size in one.sizes if len(one.sizes) <= MAX_SIZES else dict.fromkeys(spread):
            yield axis, {**draw_sizes(manifest, rng), axis: size}


def clip_sizes(manifest: Manifest, sizes: Sizes) -> Sizes:
    """These sizes, within the bounds of the free axes."""
    axes = free_axes(manifest)
    return {axis: one.clip(sizes.get(axis, one.min)) for axis, one in axes.items()}


def _draw(axis: AxisRange, rng: np.random.Generator) -> int:
    return axis.clip(int(np.exp(rng.uniform(np.log(axis.min), np.log(axis.max + 1)))))
