"""A model's strategy of invariance: run every batch at shapes at which an item's answer never depends on its mates.

Rows are added (copies of the last one) or widened (zeros beyond a row's length), and what was added is cut off, so
callers see their own shapes. Invariant: the shape that a row is computed at follows from the row and the strategy, or
is one of those that were certified to make no difference.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from service.manifest import Manifest

Array = npt.NDArray[Any]
Compute = Callable[[Mapping[str, Array], Sequence[str]], dict[str, Array]]


def canonical(manifest: Manifest, compute: Compute) -> Compute:
    """`compute` under the strategy that the manifest names; itself if that is "none"."""
    bounds = manifest.invariance.bounds
    match manifest.invariance.strategy:
        case "none":
            return compute
        case "minimum-batch-2":
            return _Doubled(compute=compute)
        case "batch-buckets":
            return _Filled(compute=compute, bounds=bounds)
        case "length-buckets":
            specs = (*manifest.inputs, *manifest.outputs)
            has_steps = frozenset(spec.name for spec in specs if spec.shape[1:2] == ("steps",))
            return _Widened(compute=_Doubled(compute=compute), bounds=bounds, has_steps=has_steps)


@dataclass(frozen=True, kw_only=True)
class _Doubled:
    """A single row is run as two equal ones."""

    compute: Compute

    def __call__(self, inputs: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
        if _num_rows(inputs) != 1:
            return self.compute(inputs, names)
        twice = {name: np.repeat(value, 2, axis=0) for name, value in inputs.items()}
        return {name: value[:1] for name, value in self.compute(twice, names).items()}


@dataclass(frozen=True, kw_only=True)
class _Filled:
    """Batches have one of the sizes `bounds`, or a multiple of the last."""

    compute: Compute
    bounds: tuple[int, ...]

    def __call__(self, inputs: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
        num_rows = _num_rows(inputs)
        last = self.bounds[-1]
        size = -(-num_rows // last) * last if num_rows > last else self.bounds[bisect_left(self.bounds, num_rows)]
        if size == num_rows or not num_rows:
            return self.compute(inputs, names)
        rows = np.minimum(np.arange(size), num_rows - 1)
        filled = {name: value.take(rows, axis=0) for name, value in inputs.items()}
        return {name: value[:num_rows] for name, value in self.compute(filled, names).items()}


@dataclass(frozen=True, kw_only=True)
class _Widened:
    """Rows are padded to the first of `bounds` that holds them, and only rows of the same bound share a run."""

    compute: Compute
    bounds: tuple[int, ...]
    has_steps: frozenset[str]

    def __call__(self, inputs: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
        lengths = inputs["lengths"].tolist()
        bucket = bisect_left(self.bounds, max(lengths))
        if bucket == bisect_left(self.bounds, min(lengths)):
            return self._run(inputs, names, self.bounds[bucket])
        buckets = np.searchsorted(self.bounds, lengths)
        answer: dict[str, Array] = {}
        for bucket in np.unique(buckets):
            rows = np.flatnonzero(buckets == bucket)
            part = self._run({name: value[rows] for name, value in inputs.items()}, names, self.bounds[bucket])
            for name, value in part.items():
                if name not in answer:
                    answer[name] = np.zeros((len(lengths), *value.shape[1:]), value.dtype)
                answer[name][rows] = value
        return answer

    def _run(self, inputs: Mapping[str, Array], names: Sequence[str], bound: int) -> dict[str, Array]:
        """At this length, for rows that it holds."""
        num_steps = next(value.shape[1] for name, value in inputs.items() if name in self.has_steps)
        widened = {name: self._fit(name, value, bound) for name, value in inputs.items()}
        return {name: self._fit(name, value, num_steps) for name, value in self.compute(widened, names).items()}

    def _fit(self, name: str, value: Array, num_steps: int) -> Array:
        """Cut or padded with zeros to `num_steps`; a row's own steps are never cut, as its bound holds them."""
        if name not in self.has_steps or value.shape[1] == num_steps:
            return value
        fitted = np.zeros((len(value), num_steps, *value.shape[2:]), value.dtype)
        kept = min(num_steps, value.shape[1])
        fitted[:, :kept] = value[:, :kept]
        return fitted


def _num_rows(inputs: Mapping[str, Array]) -> int:
    return len(next(iter(inputs.values())))
