"""Where a model's tensors have their rows and steps, so that rows of several requests can share a batch.

A model with an input `lengths` is ragged: rows of several lengths may share a batch, padded with zeros to the longest.
All others share a batch only if every axis but the first is equal. Invariant: what `check` let pass is what the
manifest declares, so one request cannot change type or shape of a batch that it shares with others.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from service.manifest import Manifest, TensorSpec

Array = npt.NDArray[Any]
Tensors = Mapping[str, Array]
GROWTH = 1.1  # from one bucket of lengths to the next: a row is padded by less than a tenth


class NotFiniteError(ValueError):
    """These rows hold numbers that are not finite."""

    def __init__(self, rows: list[int]) -> None:
        super().__init__(f"rows {rows} are not finite")
        self.rows = rows


class Layout:
    def __init__(self, manifest: Manifest, length_buckets: Sequence[int] | None = None) -> None:
        """`length_buckets`: their upper bounds, where the model's answers need the same bounds in every batch."""
        self.name = manifest.name
        self.where = f"{manifest.name}/{manifest.version}"
        self.ragged = any(spec.name == "lengths" and spec.shape == ("batch",) for spec in manifest.inputs)
        self.length_buckets = tuple(length_buckets or ())
        self.mixes = not self.length_buckets  # may rows of neighbouring buckets share a batch?
        longest = manifest.limits.max_steps or 1 << 16
        self._bounds = self.length_buckets or _bounds(longest)
        self._inputs = tuple((spec.name, np.dtype(spec.dtype), spec.shape[1:], spec) for spec in manifest.inputs)
        self._floats = tuple(name for name, dtype, *_ in self._inputs if dtype.kind == "f")
        specs = (*manifest.inputs, *manifest.outputs) if self.ragged else ()
        self._has_steps = frozenset(spec.name for spec in specs if spec.shape[1:2] == ("steps",))
        self._fits_steps = any(spec.name in self._has_steps for spec in manifest.outputs)
        places: dict[str, tuple[str, int]] = {}  # of each axis that is free, in one of the inputs
        for name, _, tail, _ in self._inputs:
            for place, axis in enumerate(tail, start=1):
                if axis == "steps" or (isinstance(axis, str) and not self.ragged):
                    places.setdefault(axis, (name, place))
        self._places = tuple(places.values())

    def check(self, inputs: Tensors) -> int:
        """The number of rows. Raises ValueError that names the input that does not fit."""
        if len(inputs) != len(self._inputs):
            raise self._misfit(inputs)
        num_rows = 0
        sizes: dict[str, int] | None = None
        for name, dtype, tail, _ in self._inputs:
            value = inputs.get(name)
            if type(value) is not np.ndarray or value.dtype != dtype:
                raise self._misfit(inputs)
            shape = value.shape
            if len(shape) != len(tail) + 1:
                raise self._misfit(inputs)
            num_rows = num_rows or shape[0]
            if shape[0] != num_rows or not num_rows:
                raise self._misfit(inputs)
            if shape[1:] != tail:
                sizes = {} if sizes is None else sizes
                for axis, size in zip(tail, shape[1:]):  # noqa: B905 - they are equally long
                    if axis != size and (isinstance(axis, int) or sizes.setdefault(axis, size) != size):
                        raise self._misfit(inputs)
        if self.ragged:
            self._check_lengths(inputs)
        return num_rows

    def check_numbers(self, inputs: Tensors) -> None:
        """Raises NotFiniteError if there is a number that is not finite."""
        rows: set[int] = set()
        for name in self._floats:
            value = inputs[name]
            if not math.isfinite(np.vdot(value, value)):  # the quick look; the square of a finite number may not be
                bad = ~np.isfinite(value).reshape(len(value), -1).all(axis=1)
                rows.update(np.flatnonzero(bad).tolist())
        if rows:
            raise NotFiniteError(sorted(rows))

    def key(self, inputs: Tensors) -> tuple[int, ...]:
        """Of a model that is not ragged: requests with equal keys may share a batch."""
        return tuple([inputs[name].shape[place] for name, place in self._places])

    def num_steps(self, inputs: Tensors) -> int:
        """Steps that the rows of a request were padded to, and whatever else a model without lengths leaves free (such
        as a past); 0 if all of its rows have one size.
        """
        size = 0
        for name, place in self._places:
            size += inputs[name].shape[place]
        return size

    def bucket(self, length: int) -> int:
        """Of a ragged model: the number of the bucket that a row of this length belongs to."""
        return bisect_left(self._bounds, length)

    def computed_steps(self, longest: int) -> int:
        """Steps that a batch whose longest row has `longest` is computed at, where lengths have given bounds."""
        return longest if self.mixes or not longest else self._bounds[self.bucket(longest)]

    def gather(self, parts: Sequence[Tensors], num_steps: int) -> dict[str, Array]:
        """The rows of these inputs as one batch, in their order, cut or padded to `num_steps`: that of the longest.

        The rows are joined as bytes, because numpy gives up the interpreter lock for each row that it copies, and a
        thread that assembles a batch would wait for the event loop at every row.
        """
        batch: dict[str, Array] = {}
        for name, dtype, *_ in self._inputs:
            values = [part[name] for part in parts]
            shape = values[0].shape[1:]
            if name in self._has_steps:
                shape = num_steps, *shape[1:]
                values = _padded(values, num_steps)
            batch[name] = np.frombuffer(_joined(values), dtype).reshape(-1, *shape)
        return batch

    def fit(self, answer: dict[str, Array], num_steps: int) -> dict[str, Array]:
        """Rows of an answer as if their request had been computed alone: cut or padded to its own `num_steps`."""
        if not self._fits_steps:
            return answer
        has_steps = self._has_steps
        return {name: self._fit(value, num_steps) if name in has_steps else value for name, value in answer.items()}

    def _fit(self, value: Array, num_steps: int) -> Array:
        if value.shape[1] == num_steps:
            return value
        if value.shape[1] > num_steps:
            return value[:, :num_steps]
        padded = np.zeros((len(value), num_steps, *value.shape[2:]), value.dtype)
        padded[:, : value.shape[1]] = value
        return padded

    def _check_lengths(self, inputs: Tensors) -> None:
        num_steps = self.num_steps(inputs)
        lengths = inputs["lengths"].tolist()
        if min(lengths) > 0 and max(lengths) <= num_steps:
            return
        for row, length in enumerate(lengths):
            if not 0 < length <= num_steps:
                raise ValueError(f"{self.where}: input 'lengths': row {row} is {length}, expected 1 to {num_steps}")

    def _misfit(self, inputs: Tensors) -> ValueError:
        names = {name for name, *_ in self._inputs}
        if set(inputs) != names:
            return ValueError(f"{self.where}: inputs {sorted(inputs)}, expected {sorted(names)}")
        came = {name: _came(value) for name, value in inputs.items()}
        expected = {spec.name: _words(spec) for *_, spec in self._inputs}
        return ValueError(f"{self.where}: inputs {came}, expected {expected} of one size for each name, not empty")


def _padded(values: Sequence[Array], num_steps: int) -> list[Array]:
    """Their rows one after the other, each cut to `num_steps` or followed by the zeros that it lacks."""
    zeros = np.zeros((num_steps, *values[0].shape[2:]), values[0].dtype)
    parts: list[Array] = []
    for value in values:
        lacking = num_steps - value.shape[1]
        if lacking < 0:
            parts.extend(value[:, :num_steps])
        elif not lacking:
            parts.append(value)
        elif len(value) == 1:
            parts += value, zeros[:lacking]
        else:
            for row in value:
                parts += row, zeros[:lacking]
    return parts


def _joined(values: Sequence[Any]) -> bytearray:
    try:
        return bytearray().join(values)
    except TypeError:  # only what lies in one piece can be joined
        return bytearray().join([np.ascontiguousarray(value).data for value in values])


def _came(value: Any) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__


def _words(spec: TensorSpec) -> str:
    return f"{spec.dtype} [{', '.join(map(str, spec.shape))}]"


def _bounds(longest: int) -> tuple[int, ...]:
    """1, 2, 3, ... 19, 20, 22, 24, 26, 28, 30, 33, ... to `longest`."""
    bounds = [1]
    while bounds[-1] < longest:
        bounds.append(min(max(int(bounds[-1] * GROWTH), bounds[-1] + 1), longest))
    return tuple(bounds)
