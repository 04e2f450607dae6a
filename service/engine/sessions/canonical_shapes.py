"""Run every batch at canonical shapes, so that a row's result does not depend on the rows that share its batch.

The shape strategies append rows (copies of the last row) or steps (zeros beyond a row's length) and cut them off
afterwards, so callers see their own shapes. Invariant: the shape at which a row is computed follows from the row and
the strategy, or is one of the shapes for which export has certified that results are equal.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from service.manifest import Invariance, Manifest

Array = npt.NDArray[Any]
Compute = Callable[[Mapping[str, Array], Sequence[str]], dict[str, Array]]


def with_shape_strategy(manifest: Manifest, compute: Compute) -> Compute:
    """Wrap `compute` in the strategy that the manifest names; return `compute` itself for "none"."""
    bounds = manifest.invariance.bounds
    match manifest.invariance.strategy:
        case "none":
            return compute
        case "minimum-batch-2":
            return MinBatch2(compute=compute)
        case "batch-buckets":
            return BatchBuckets(compute=compute, bounds=bounds)
        case "length-buckets":
            specs = (*manifest.inputs, *manifest.outputs)
            has_steps = frozenset(spec.name for spec in specs if spec.shape[1:2] == ("steps",))
            return LengthBuckets(compute=MinBatch2(compute=compute), bounds=bounds, has_steps=has_steps)


def padded_rows(invariance: Invariance, num_rows: int) -> int:
    """Return the number of rows at which the strategy computes this many rows of one length."""
    match invariance.strategy:
        case "minimum-batch-2":
            return max(num_rows, 2)
        case "batch-buckets":
            return _bucket(invariance.bounds, num_rows)
        case _:
            return num_rows


def _bucket(bounds: Sequence[int], num_rows: int) -> int:
    bucket, last = bisect_left(bounds, num_rows), bounds[-1]
    return bounds[bucket] if bucket < len(bounds) else -(-num_rows // last) * last


@dataclass(frozen=True, kw_only=True)
class MinBatch2:
    """Duplicate a single row, because kernels may use other code for a batch of one."""

    compute: Compute

    def __call__(self, inputs: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
        if len(next(iter(inputs.values()))) != 1:
            return self.compute(inputs, names)
        duplicated = {name: np.repeat(value, 2, axis=0) for name, value in inputs.items()}
        return {name: value[:1] for name, value in self.compute(duplicated, names).items()}


@dataclass(frozen=True, kw_only=True)
class BatchBuckets:
    """Pad the batch to the next size in `bounds`, or to a multiple of the last size."""

    compute: Compute
    bounds: tuple[int, ...]

    def __call__(self, inputs: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
        num_rows = len(next(iter(inputs.values())))
        size = _bucket(self.bounds, num_rows)
        if size == num_rows or not num_rows:
            return self.compute(inputs, names)
        rows = np.minimum(np.arange(size), num_rows - 1)
        padded = {name: value.take(rows, axis=0) for name, value in inputs.items()}
        return {name: value[:num_rows] for name, value in self.compute(padded, names).items()}


@dataclass(frozen=True, kw_only=True)
class LengthBuckets:
    """Pad each row to the smallest of `bounds` that holds it; rows with different bounds are computed separately."""

    compute: Compute
    bounds: tuple[int, ...]
    has_steps: frozenset[str]

    def __call__(self, inputs: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
        lengths = inputs["lengths"].tolist()
        bucket = bisect_left(self.bounds, max(lengths))
        if bucket == bisect_left(self.bounds, min(lengths)):
            return self._run(inputs, names, self.bounds[bucket])
        buckets = np.searchsorted(self.bounds, lengths)
        results: dict[str, Array] = {}
        for bucket in np.unique(buckets):
            rows = np.flatnonzero(buckets == bucket)
            part = self._run({name: value[rows] for name, value in inputs.items()}, names, self.bounds[bucket])
            for name, value in part.items():
                if name not in results:
                    results[name] = np.zeros((len(lengths), *value.shape[1:]), value.dtype)
                results[name][rows] = value
        return results

    def _run(self, inputs: Mapping[str, Array], names: Sequence[str], bound: int) -> dict[str, Array]:
        """Compute rows of one bucket at `bound` steps; results have the steps of `inputs`."""
        num_steps = next(value.shape[1] for name, value in inputs.items() if name in self.has_steps)
        resized = {name: self._resize(name, value, bound) for name, value in inputs.items()}
        return {name: self._resize(name, value, num_steps) for name, value in self.compute(resized, names).items()}

    def _resize(self, name: str, value: Array, num_steps: int) -> Array:
        """Cut or zero-pad to `num_steps`. No row loses steps of its own, because its bound holds them all."""
        if name not in self.has_steps or value.shape[1] == num_steps:
            return value
        resized = np.zeros((len(value), num_steps, *value.shape[2:]), value.dtype)
        num_copied = min(num_steps, value.shape[1])
        resized[:, :num_copied] = value[:, :num_copied]
        return resized
