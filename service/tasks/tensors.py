"""Validates the raw input tensors of a request against the manifest.

Invariant: tensors that pass `value_rules` (shapes) and `check_values` (values) have the axes, lengths, token ids and
numbers that the manifest declares. The graph cannot fail on them, and no row can affect another row.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from service.contract.tensors import TensorSpec
from service.manifest import Manifest, ValueRange
from service.tasks.domain import is_between
from service.tasks.faults import fault

Array = npt.NDArray[Any]
DTYPES = {name: np.dtype(name) for name in ("uint8", "int64", "float32")}


def shape_mismatch(shape: Sequence[int], spec: TensorSpec) -> str | None:
    """Return the difference between `shape` and the spec as a sentence, or None if they match."""
    matches = len(shape) == len(spec.shape) and all(
        isinstance(axis, str) or axis == size for axis, size in zip(spec.shape, shape, strict=True)
    )
    return None if matches else f"expected shape [{', '.join(map(str, spec.shape))}], got {list(shape)}"


class ValueRule(NamedTuple):
    """The valid values of one tensor: `min_value` to `max_value`, or all finite numbers if `max_value` is None.

    Where `is_padded`, steps at or beyond the length of a row may also be zero.
    """

    name: str
    pointer: str
    min_value: float = 0
    max_value: float | None = None
    is_padded: bool = False


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
                max_size = manifest.limits.max_items if axis == "batch" else manifest.limits.max_steps
                min_size = 0 if axis == "past" else 1
                if size < min_size or (max_size is not None and size > max_size):
                    raise fault(pointers[spec.name], f"expected a {axis} axis of {min_size} to {max_size}, got {size}")
        if spec.dtype == "float32":
            rules.append(_float_rule(spec, pointers[spec.name], manifest.domain.get(spec.name), "lengths" in shapes))
    steps = sizes.get("steps", (0, ""))[0]
    if "ids" in shapes:
        rules.append(ValueRule("ids", pointers["ids"], 0, manifest.reader.vocabulary - 1))  # type: ignore[union-attr]
    if "lengths" in shapes:
        rules.append(ValueRule("lengths", pointers["lengths"], 1, steps))
    if "past_lengths" in shapes:
        context = manifest.limits.max_steps
        max_past = sizes["past"][0] if context is None else min(sizes["past"][0], context - steps)
        rules.append(ValueRule("past_lengths", pointers["past_lengths"], 0, max_past))
    return tuple(rules)


def _float_rule(spec: TensorSpec, pointer: str, allowed: ValueRange | None, has_lengths: bool) -> ValueRule:
    if allowed is None:
        return ValueRule(spec.name, pointer)
    return ValueRule(spec.name, pointer, allowed.low, allowed.high, has_lengths and spec.shape[1] == "steps")


def check_values(tensors: Mapping[str, Array], rules: Sequence[ValueRule]) -> None:
    """Raise EkibenError("invalid-request") that names the tensor and its first invalid value."""
    for name, pointer, min_value, max_value, is_padded in rules:
        tensor = tensors[name]
        if max_value is None:
            # The fast check: a finite sum of squares proves that all numbers are finite. The converse does not hold.
            if math.isfinite(np.vdot(tensor, tensor)):
                continue
            expected, is_invalid = "finite numbers", ~np.isfinite(tensor)
        else:
            if not tensor.size or is_between(tensor, min_value, max_value):
                continue
            expected, is_invalid = f"{min_value} to {max_value}", ~((tensor >= min_value) & (tensor <= max_value))
            if is_padded:
                is_padding = np.arange(tensor.shape[1]) >= tensors["lengths"][:, None]
                is_invalid &= ~(is_padding[..., None] & (tensor == 0))
        if is_invalid.any():
            at = np.argwhere(is_invalid)[0].tolist()
            raise fault(pointer, f"expected {expected}, got {tensor[tuple(at)]!s} at {at}")


def clear_padding(outputs: Mapping[str, Array], inputs: Mapping[str, Array], manifest: Manifest) -> None:
    """Set output values beyond a row's length to zero: they are undefined and would depend on the batch."""
    if "lengths" in inputs:
        for spec in manifest.outputs:
            if spec.name in outputs and spec.shape[1:2] == ("steps",):
                output = outputs[spec.name]
                output[np.arange(output.shape[1]) >= inputs["lengths"][:, None]] = 0
