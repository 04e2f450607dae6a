"""Rows of several requests become one batch, and each request gets its own steps back.

The batch axis is first, whatever the manifest declares. Rows of several lengths may share a batch of a ragged model,
padded with zeros to the longest. Rows of all other models share a batch only if every axis but the first is equal, and
requests to a model without a batch axis never do. Invariant: inputs that pass `validate` have the types and shapes that
the manifest declares, so one request cannot change those of a batch that it shares.
"""

import itertools
import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from service.contract.tensors import TensorSpec
from service.engine.batching.outputs import OutputCheck
from service.manifest import Manifest

Array = npt.NDArray[Any]
Tensors = Mapping[str, Array]
BUCKET_GROWTH = 1.1  # from one bucket of lengths to the next: a row is padded by less than a tenth


class NotFiniteError(ValueError):
    """The listed rows hold numbers that are not finite."""

    def __init__(self, rows: list[int]) -> None:
        super().__init__(f"rows {rows} are not finite")
        self.rows = rows


class Collator:
    def __init__(self, manifest: Manifest, length_buckets: Sequence[int] | None = None) -> None:
        """`length_buckets`: upper bounds of lengths, if the model must be padded to the same bounds in every batch."""
        self.name = manifest.name
        self.model = f"{manifest.name}/{manifest.version}"
        self.is_ragged = manifest.is_ragged
        self._number_alone = None if manifest.is_batched else itertools.count()
        self.output_check = OutputCheck(manifest)
        self.length_buckets = tuple(length_buckets or ())
        self.mixes_buckets = not self.length_buckets  # rows of neighbouring buckets may share a batch
        longest = manifest.limits.max_steps or 1 << 16
        self._bounds = self.length_buckets or _bounds(longest)
        self._inputs = tuple((spec.name, spec.numpy_dtype, spec.row_shape, spec) for spec in manifest.inputs)
        self._floats = tuple(name for name, dtype, *_ in self._inputs if dtype.kind == "f")
        specs = (*manifest.inputs, *manifest.outputs) if self.is_ragged else ()
        self._has_steps = frozenset(spec.name for spec in specs if spec.shape[1:2] == ("steps",))
        self._restores_steps = any(spec.name in self._has_steps for spec in manifest.outputs)
        free_axes: dict[str, tuple[str, int]] = {}  # axis -> an input that has it, and where
        for name, _, tail, _ in self._inputs:
            for number, axis in enumerate(tail, start=1):
                if axis == "steps" or (isinstance(axis, str) and not self.is_ragged):
                    free_axes.setdefault(axis, (name, number))
        self._free_axes = tuple(free_axes.values())

    def validate(self, inputs: Tensors) -> int:
        """The number of rows. Raises ValueError that names the input that the manifest does not allow."""
        if len(inputs) != len(self._inputs):
            raise self._invalid(inputs)
        num_rows = 0
        sizes: dict[str, int] | None = None
        for name, dtype, tail, _ in self._inputs:
            value = inputs.get(name)
            if type(value) is not np.ndarray or value.dtype != dtype:
                raise self._invalid(inputs)
            shape = value.shape
            if len(shape) != len(tail) + 1:
                raise self._invalid(inputs)
            num_rows = num_rows or shape[0]
            if shape[0] != num_rows or not num_rows:
                raise self._invalid(inputs)
            if shape[1:] != tail:
                sizes = {} if sizes is None else sizes
                for axis, size in zip(tail, shape[1:]):  # noqa: B905 - they are equally long
                    if axis != size and (isinstance(axis, int) or sizes.setdefault(axis, size) != size):
                        raise self._invalid(inputs)
        if self.is_ragged:
            self._check_lengths(inputs)
        return num_rows

    def check_finite(self, inputs: Tensors) -> None:
        """Raises NotFiniteError if a row holds a number that is not finite."""
        rows: set[int] = set()
        for name in self._floats:
            value = inputs[name]
            if not math.isfinite(np.vdot(value, value)):  # quick, but the square of a finite number may be infinite
                bad = ~np.isfinite(value).reshape(len(value), -1).all(axis=1)
                rows.update(np.flatnonzero(bad).tolist())
        if rows:
            raise NotFiniteError(sorted(rows))

    def batch_key(self, inputs: Tensors) -> tuple[int, ...]:
        """For a model that is not ragged: requests with equal keys may share a batch."""
        if self._number_alone is not None:
            return (next(self._number_alone),)
        return tuple([inputs[name].shape[axis] for name, axis in self._free_axes])

    def num_steps(self, inputs: Tensors) -> int:
        """Steps that rows are padded to, plus other free axes of a model without lengths; 0 if rows have one size."""
        size = 0
        for name, axis in self._free_axes:
            size += inputs[name].shape[axis]
        return size

    def length_bucket(self, length: int) -> int:
        """For a ragged model: the number of the bucket that holds rows of this length."""
        return bisect_left(self._bounds, length)

    def computed_steps(self, longest: int) -> int:
        """Steps at which a batch is computed whose longest row has `longest` steps."""
        return longest if self.mixes_buckets or not longest else self._bounds[self.length_bucket(longest)]

    def collate(self, parts: Sequence[Tensors], num_steps: int) -> dict[str, Array]:
        """The rows of these inputs as one batch, in their order, cut or padded to `num_steps` (of the longest row).

        The rows are joined as bytes: numpy releases the interpreter lock for each row that it copies, so a thread that
        assembles a batch would wait for the event loop at every row.
        """
        batch: dict[str, Array] = {}
        for name, dtype, *_ in self._inputs:
            values = [part[name] for part in parts]
            shape = values[0].shape[1:]
            if name in self._has_steps:
                shape = num_steps, *shape[1:]
                values = _padded(values, num_steps)
            if dtype.hasobject:
                batch[name] = np.concatenate(values)
                continue
            batch[name] = np.frombuffer(_joined(values), dtype).reshape(-1, *shape)
        return batch

    def restore_steps(self, answer: dict[str, Array], num_steps: int) -> dict[str, Array]:
        """The answer as if its request had been computed alone: steps cut or padded to `num_steps`."""
        if not self._restores_steps:
            return answer
        has_steps = self._has_steps
        return {name: _with_steps(value, num_steps) if name in has_steps else value for name, value in answer.items()}

    def _check_lengths(self, inputs: Tensors) -> None:
        num_steps = self.num_steps(inputs)
        lengths = inputs["lengths"].tolist()
        if min(lengths) > 0 and max(lengths) <= num_steps:
            return
        for row, length in enumerate(lengths):
            if not 0 < length <= num_steps:
                raise ValueError(f"{self.model}: input 'lengths': row {row} is {length}, expected 1 to {num_steps}")

    def _invalid(self, inputs: Tensors) -> ValueError:
        names = {name for name, *_ in self._inputs}
        if set(inputs) != names:
            return ValueError(f"{self.model}: inputs {sorted(inputs)}, expected {sorted(names)}")
        got = {name: _describe_array(value) for name, value in inputs.items()}
        expected = {spec.name: _describe_spec(spec) for *_, spec in self._inputs}
        detail = f"inputs {got}, expected {expected}, each axis name with one size, none empty"
        return ValueError(f"{self.model}: {detail}")


def _padded(values: Sequence[Array], num_steps: int) -> list[Array]:
    """The rows one after the other, each cut to `num_steps` or followed by zeros up to it."""
    zeros = np.zeros((num_steps, *values[0].shape[2:]), values[0].dtype)
    parts: list[Array] = []
    for value in values:
        missing_steps = num_steps - value.shape[1]
        if missing_steps < 0:
            parts.extend(value[:, :num_steps])
        elif not missing_steps:
            parts.append(value)
        elif len(value) == 1:
            parts += value, zeros[:missing_steps]
        else:
            for row in value:
                parts += row, zeros[:missing_steps]
    return parts


def _with_steps(value: Array, num_steps: int) -> Array:
    if value.shape[1] == num_steps:
        return value
    if value.shape[1] > num_steps:
        return value[:, :num_steps]
    padded = np.zeros((len(value), num_steps, *value.shape[2:]), value.dtype)
    padded[:, : value.shape[1]] = value
    return padded


def _joined(values: Sequence[Any]) -> bytearray:
    try:
        return bytearray().join(values)
    except TypeError:  # join needs contiguous arrays
        return bytearray().join([np.ascontiguousarray(value).data for value in values])


def _describe_array(value: Any) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__


def _describe_spec(spec: TensorSpec) -> str:
    return f"{spec.dtype} [{', '.join(map(str, spec.shape))}]"


def _bounds(longest: int) -> tuple[int, ...]:
    """1, 2, 3, ... 19, 20, 22, 24, 26, 28, 30, 33, ... to `longest`."""
    bounds = [1]
    while bounds[-1] < longest:
        bounds.append(min(max(int(bounds[-1] * BUCKET_GROWTH), bounds[-1] + 1), longest))
    return tuple(bounds)
