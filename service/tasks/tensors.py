"""Validates the raw input tensors of a request against the manifest.

Invariant: tensors that pass `value_rules` (shapes) and `check_values` (values) have the axes, lengths, token ids and
numbers that the manifest declares. The graph cannot fail on them, and no row can affect another row.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from service.contract.heads import LanguageModelHead
from service.contract.readers import TableReader, TextReader
from service.contract.tensors import BATCH, FLOATS, TensorSpec
from service.manifest import Manifest, ValueRange, describe_sizes
from service.tasks.domain import is_between
from service.tasks.faults import fault

Array = npt.NDArray[Any]


def shape_mismatch(shape: Sequence[int], spec: TensorSpec) -> str | None:
    """Return the difference between `shape` and the spec as a sentence, or None if they match."""
    matches = len(shape) == len(spec.shape) and all(
        isinstance(axis, str) or axis == size for axis, size in zip(spec.shape, shape, strict=True)
    )
    return None if matches else f"expected shape [{', '.join(map(str, spec.shape))}], got {list(shape)}"


class ValueRule(NamedTuple):
    """The valid values of one tensor: `min_value` to `max_value`, or all finite numbers if `max_value` is None.

    Where `is_padded`, steps at or beyond the length of a row may also be zero. With `columns`, each index of the last
    axis has bounds of its own.
    """

    name: str
    pointer: str
    min_value: float = 0
    max_value: float | None = None
    is_padded: bool = False
    columns: tuple[tuple[float, float], ...] = ()


def value_rules(
    shapes: Mapping[str, Sequence[int]], manifest: Manifest, pointers: Mapping[str, str]
) -> tuple[ValueRule, ...]:
    """Return the rules for the values of tensors with these names and shapes; `pointers` maps names to JSON pointers.

    Raises EkibenError("invalid-request") that names the tensor whose shape exceeds a limit or contradicts another.
    """
    sizes: dict[str, tuple[int, str]] = {}
    rules: list[ValueRule] = []
    for spec in manifest.inputs:
        for axis, size in zip(spec.shape, shapes[spec.name], strict=True):
            if isinstance(axis, str):
                first, name = sizes.setdefault(axis, (size, spec.name))
                if first != size:
                    raise fault(pointers[spec.name], f"expected {axis} = {first} as in {name!r}, got {size}")
                low, high, multiple_of = _axis_bounds(axis, manifest)
                if not low <= size <= high or size % multiple_of:
                    expected = describe_sizes(low, high, multiple_of)
                    raise fault(pointers[spec.name], f"expected a {axis} axis of {expected}, got {size}")
        if spec.dtype in FLOATS:
            rules.append(_float_rule(spec, pointers[spec.name], manifest.domain.get(spec.name), manifest.is_ragged))
    steps = sizes.get("steps", (0, ""))[0]
    reader = manifest.reader
    if isinstance(reader, TextReader):
        rules.append(ValueRule("ids", pointers["ids"], 0, reader.vocabulary - 1))
    if isinstance(reader, TableReader):
        rules += _column_rules(reader, pointers)
    if manifest.is_ragged:
        rules.append(ValueRule("lengths", pointers["lengths"], 1, steps))
    if isinstance(manifest.head, LanguageModelHead):
        max_past = min(sizes["past"][0], manifest.limits.axis_range("past").max - steps)
        rules.append(ValueRule("past_lengths", pointers["past_lengths"], 0, max_past))
    return tuple(rules)


def _axis_bounds(axis: str, manifest: Manifest) -> tuple[int, int, int]:
    """Return the smallest and the largest size, and the number of which every size is a multiple."""
    if axis == BATCH:
        return 1, manifest.limits.max_items, 1
    bounds = manifest.limits.axis_range(axis)
    return 0 if axis == "past" else bounds.min, bounds.max, bounds.multiple_of


def _column_rules(reader: TableReader, pointers: Mapping[str, str]) -> list[ValueRule]:
    bounds = {
        "numbers": tuple((column.low, column.high) for column in reader.numbers),
        "categories": tuple((0, len(column.values) - 1) for column in reader.categories),
    }
    return [ValueRule(name, pointers[name], columns=columns) for name, columns in bounds.items() if columns]


def _float_rule(spec: TensorSpec, pointer: str, allowed: ValueRange | None, is_ragged: bool) -> ValueRule:
    if allowed is None:
        return ValueRule(spec.name, pointer)
    return ValueRule(spec.name, pointer, allowed.low, allowed.high, is_ragged and spec.shape[1] == "steps")


def check_values(tensors: Mapping[str, Array], rules: Sequence[ValueRule]) -> None:
    """Raise EkibenError("invalid-request") that names the tensor and its first invalid value."""
    for name, pointer, min_value, max_value, is_padded, columns in rules:
        tensor = tensors[name]
        if columns:
            _check_columns(tensor, columns, pointer)
        elif max_value is None:
            # The fast check: a finite sum of squares proves that all numbers are finite. The converse does not hold.
            if not math.isfinite(np.vdot(tensor, tensor)):
                _raise_invalid(tensor, ~np.isfinite(tensor), "finite numbers", pointer)
        else:
            if not tensor.size or is_between(tensor, min_value, max_value):
                continue
            is_invalid = ~((tensor >= min_value) & (tensor <= max_value))
            if is_padded:
                is_padding = np.arange(tensor.shape[1]) >= tensors["lengths"][:, None]
                is_invalid &= ~(is_padding[..., None] & (tensor == 0))
            _raise_invalid(tensor, is_invalid, f"{min_value} to {max_value}", pointer)


def _check_columns(tensor: Array, columns: tuple[tuple[float, float], ...], pointer: str) -> None:
    low, high = np.array(columns, tensor.dtype).T  # numbers count in float32
    is_invalid = ~((tensor >= low) & (tensor <= high))
    for column in np.flatnonzero(is_invalid.any(axis=0))[:1].tolist():
        expected = f"{columns[column][0]} to {columns[column][1]}"
        is_invalid[:, :column] = is_invalid[:, column + 1 :] = False
        _raise_invalid(tensor, is_invalid, expected, pointer)


def _raise_invalid(tensor: Array, is_invalid: npt.NDArray[np.bool_], expected: str, pointer: str) -> None:
    if is_invalid.any():
        at = np.argwhere(is_invalid)[0].tolist()
        raise fault(pointer, f"expected {expected}, got {tensor[tuple(at)]!s} at {at}")


def clear_padding(outputs: Mapping[str, Array], inputs: Mapping[str, Array], manifest: Manifest) -> None:
    """Set output values beyond a row's length to zero: they are undefined and would depend on the batch."""
    if manifest.is_ragged:
        for spec in manifest.outputs:
            if spec.name in outputs and spec.shape[1:2] == ("steps",):
                output = outputs[spec.name]
                output[np.arange(output.shape[1]) >= inputs["lengths"][:, None]] = 0
