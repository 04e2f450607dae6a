"""The input shapes at which a model is run before it serves requests.

Invariant: every batch size and length that a model admits lies between two neighbouring sizes of its warm-up shapes,
which include both limits, and the model admits every warm-up shape.
"""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from service.bundle import Tensors
from service.contract.heads import LanguageModelHead
from service.engine.generation.kv_cache import MIN_CACHE_CAPACITY, PREFILL_CHUNK, token_bytes
from service.engine.limits import Limits
from service.manifest import Manifest

MIN_STEPS = 8


@dataclass(frozen=True, kw_only=True)
class Shape:
    """`steps` and `past` are None for models without these axes; `axes` has the sizes of all other free axes."""

    batch: int
    steps: int | None = None
    past: int | None = None
    axes: tuple[tuple[str, int], ...] = ()


def warmup_shapes(manifest: Manifest, admitted: Limits | None = None) -> tuple[Shape, ...]:
    """Return batches of 1, 2, 4, ... up to `max_items` times lengths of 8, 16, ... up to `max_steps`, smallest first.

    A language model reads prompts in chunks and decodes batches of up to `max_items` at each capacity of its cache: 64,
    128, ... With `admitted`, the batches are of up to as many rows as it admits at this capacity, if these are more.
    """
    limits = manifest.limits
    batches = doubling(1, limits.max_items)
    if limits.axes:
        steps = (None,) if limits.max_steps is None else doubling(MIN_STEPS, limits.max_steps)
        grid = itertools.product(steps, axis_sizes(manifest), batches)
        return tuple(Shape(batch=batch, steps=length, axes=axes) for length, axes, batch in grid)
    if limits.max_steps is None:
        return tuple(Shape(batch=batch) for batch in batches)
    lengths = doubling(MIN_STEPS, limits.max_steps)
    if not isinstance(manifest.head, LanguageModelHead):
        return tuple(Shape(batch=batch, steps=steps) for steps in lengths for batch in batches)
    shapes: tuple[Shape, ...] = ()
    for past in doubling(MIN_CACHE_CAPACITY, limits.max_steps):
        shapes += (Shape(batch=1, steps=min(PREFILL_CHUNK, past), past=past),)
        rows = limits.max_items
        if admitted is not None:
            fitting = admitted.kv_cache_bytes // (past * token_bytes(manifest.head))
            rows = max(rows, min(admitted.max_generations, fitting))
        shapes += tuple(Shape(batch=batch, steps=1, past=past) for batch in doubling(1, rows))
    return shapes


def largest_shapes(manifest: Manifest, limits: Limits) -> tuple[Shape, ...]:
    """Return the shapes that need the most memory: the largest batches of the shortest and of the longest rows."""
    max_items, max_steps = manifest.limits.max_items, manifest.limits.max_steps
    if manifest.limits.axes:
        *_, axes = axis_sizes(manifest)
        size = sum(size for _, size in axes) + (max_steps or 0)
        rows = max(1, min(max_items, limits.max_batch_items, limits.max_batch_steps // size))
        return (Shape(batch=rows, steps=max_steps, axes=axes),)
    if max_steps is None:
        return (Shape(batch=min(max_items, limits.max_batch_items)),)

    def batch(steps: int) -> int:
        return max(1, min(max_items, limits.max_batch_items, limits.max_batch_steps // steps))

    if isinstance(manifest.head, LanguageModelHead):
        return Shape(batch=1, steps=max_steps, past=max_steps), Shape(batch=batch(max_steps), steps=1, past=max_steps)
    return tuple(Shape(batch=batch(steps), steps=steps) for steps in sorted({1, max_steps}))


def zero_inputs(manifest: Manifest, shape: Shape) -> Tensors:
    """Return valid inputs of this shape: zeros, except that rows have full length and decode steps a full past."""
    sizes = {"batch": shape.batch, "steps": shape.steps, "past": shape.past, **dict(shape.axes)}
    fills = {"lengths": shape.steps or 1, "past_lengths": (shape.past or 1) - 1 if shape.steps == 1 else 0}
    if manifest.reader.kind == "tensors":
        fills = {}
    inputs: dict[str, npt.NDArray[Any]] = {}
    for spec in manifest.inputs:
        axes = [sizes[axis] or 1 if isinstance(axis, str) else axis for axis in ("batch", *spec.row_shape)]
        fill: Any = "" if spec.dtype == "string" else fills.get(spec.name, 0)
        if domain := manifest.domain.get(spec.name):
            fill = min(max(fill, domain.low), domain.high)
        inputs[spec.name] = np.full(axes, fill, spec.numpy_dtype)
    return inputs


def axis_sizes(manifest: Manifest) -> tuple[tuple[tuple[str, int], ...], ...]:
    """Return sizes of all axes in `limits.axes`: all smallest, all doubled, ... all largest."""
    ranges = {axis: doubling(bounds.min, bounds.max) for axis, bounds in sorted(manifest.limits.axes.items())}
    return tuple(
        tuple((axis, sizes[min(i, len(sizes) - 1)]) for axis, sizes in ranges.items())
        for i in range(max(map(len, ranges.values())))
    )


def doubling_with_midpoints(first: int, limit: int) -> tuple[int, ...]:
    """Return 1, 2, 3, 4, 6, 8, 12, ... times `first`, and `limit` as the last size."""
    return tuple(sorted({*doubling(first, limit), *doubling(3 * first, limit)}))


def doubling(first: int, limit: int) -> tuple[int, ...]:
    """Return 1, 2, 4, 8, ... times `first`, and `limit` as the last size."""
    return (*itertools.takewhile(lambda size: size < limit, (first << i for i in itertools.count())), limit)
