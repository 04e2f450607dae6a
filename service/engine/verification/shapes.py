"""The shapes that a model is run at before it serves.

Invariant: every batch size and length that a model admits lies between two neighbours of its grid, both limits are in
it, and every shape of the grid is one that the model admits.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from service.bundle import LanguageModel, Manifest, Tensors

FIRST_LENGTH = 8
FIRST_CAPACITY = 64  # of a key/value cache


@dataclass(frozen=True, kw_only=True)
class Shape:
    """`steps` and `past` where the model has such axes."""

    batch: int
    steps: int | None = None
    past: int | None = None


def grid(manifest: Manifest) -> tuple[Shape, ...]:
    """Batches of 1, 2, 4, ... up to `max_items`, by lengths of 8, 16, ... up to `max_steps`; small ones first.

    A language model reads each prompt alone and then takes single steps with up to `max_items` rows, at each capacity
    that its cache can have: 64, 128, ... up to `max_steps`.
    """
    limits = manifest.limits
    batches = doubling(1, limits.max_items)
    if limits.max_steps is None:
        return tuple(Shape(batch=batch) for batch in batches)
    lengths = doubling(FIRST_LENGTH, limits.max_steps)
    if not isinstance(manifest.parameters, LanguageModel):
        return tuple(Shape(batch=batch, steps=steps) for steps in lengths for batch in batches)
    return tuple(
        shape
        for past in doubling(FIRST_CAPACITY, limits.max_steps)
        for shape in (
            *(Shape(batch=1, steps=steps, past=past) for steps in lengths if steps <= past),
            *(Shape(batch=batch, steps=1, past=past) for batch in batches),
        )
    )


def inputs_at(manifest: Manifest, shape: Shape) -> Tensors:
    """Valid inputs of this shape: zeros, every row as long as the shape; rows that take a step have a full past."""
    sizes = {"batch": shape.batch, "steps": shape.steps, "past": shape.past}
    fills = {"lengths": shape.steps or 1, "past_lengths": (shape.past or 1) - 1 if shape.steps == 1 else 0}
    return {
        spec.name: np.full(
            [sizes[axis] or 1 if isinstance(axis, str) else axis for axis in spec.shape],
            fills.get(spec.name, 0),
            spec.dtype,
        )
        for spec in manifest.inputs
    }


def by_halves(first: int, limit: int) -> tuple[int, ...]:
    """The first, twice that, three times that, four, six, eight, twelve, ... and the limit."""
    return tuple(sorted({*doubling(first, limit), *doubling(3 * first, limit)}))


def doubling(first: int, limit: int) -> tuple[int, ...]:
    """The first, twice that, ... and the limit."""
    sizes: Iterator[int] = (first << i for i in itertools.count())
    return (*itertools.takewhile(lambda size: size < limit, sizes), limit)
