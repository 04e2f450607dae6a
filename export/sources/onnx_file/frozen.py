"""Compares golden cases with what the graph gives, and finds the axis that is frozen in a graph that is wrong.

Exporters that trace a model at one size often write a graph that declares an axis free and computes with that size.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from export.source import Array
from export.sources.onnx_file.axes import axis_sizes
from export.sources.onnx_file.goldens import Golden, Goldens
from export.sources.onnx_file.reference import FAILS, Reference
from export.spec import TensorPart, TolerancePart
from service.contract.tensors import BATCH

Arrays = Mapping[str, Array]


def check_goldens(
    reference: Reference,
    goldens: Goldens,
    inputs: Sequence[Arrays],
    parts: Sequence[TensorPart],
    tolerance: TolerancePart,
) -> None:
    """Compare every case, whose `inputs` are the graph's own, of these `parts`.

    Raises ValueError for the first case that is wrong, with the axis that is frozen in the graph, if there is one.
    """
    reasons = [
        reference.mismatch(given, case.outputs, tolerance) for given, case in zip(inputs, goldens.cases, strict=True)
    ]
    failed = next((number for number, reason in enumerate(reasons) if reason), None)
    outputs = list(goldens.cases[0].outputs)
    unread = _unread_axis(reference, inputs, parts, outputs)
    if failed is None:
        if unread:
            raise ValueError(
                f"{goldens.path}: the outputs do not depend on the further entries along the axis {unread!r}, which is "
                "frozen in the graph; convert the model so that this axis is free"
            )
        return
    sizes = axis_sizes(parts, inputs)
    case = goldens.cases[failed]
    axis = _axis_of_shape(reference, inputs[failed], case, sizes[failed]) or unread or _axis_of_sizes(sizes, reasons)
    cause = f", because its axis {axis!r} is frozen; convert the model so that this axis is free" if axis else ""
    raise ValueError(f"{goldens.path}: case {case.number} does not come out of the graph{cause}: {reasons[failed]}")


def _axis_of_shape(reference: Reference, inputs: Arrays, case: Golden, sizes: Mapping[str, int]) -> str | None:
    """The axis whose size a golden output has where the output of the graph has another one."""
    try:
        found = reference.run(inputs, list(case.outputs))
    except ValueError:
        return None
    for name, expected in case.outputs.items():
        if found[name].ndim == expected.ndim:
            for actual, size in zip(found[name].shape, expected.shape, strict=True):
                if actual != size and (axes := [axis for axis, one in sizes.items() if one == size]):
                    return next((axis for axis in axes if axis != BATCH), axes[0])
    return None


def _axis_of_sizes(sizes: Sequence[Mapping[str, int]], reasons: Sequence[str | None]) -> str | None:
    """The axis that has one size in all right cases and another one in every case in which the graph fails, if any."""
    if not any(reason and reason.startswith(FAILS) for reason in reasons):
        return None
    for axis in sorted(sizes[0], key=lambda name: name == BATCH):
        right = {one[axis] for one, reason in zip(sizes, reasons, strict=True) if reason is None}
        failed = {one[axis] for one, reason in zip(sizes, reasons, strict=True) if reason is not None}
        if len(right) == 1 and not right & failed:
            return axis
    return None


def _unread_axis(
    reference: Reference, inputs: Sequence[Arrays], parts: Sequence[TensorPart], outputs: Sequence[str]
) -> str | None:
    """The free axis whose entries beyond its smallest size the graph does not read where it is largest."""
    sizes = axis_sizes(parts, inputs)
    for axis in sizes[0]:
        smallest, largest = (pick(one[axis] for one in sizes) for pick in (min, max))
        given = inputs[next(number for number, one in enumerate(sizes) if one[axis] == largest)]
        changed = {part.name: _changed(given[part.name], part.shape, axis, smallest) for part in parts}
        if axis == BATCH or all(np.array_equal(given[name], array) for name, array in changed.items()):
            continue
        try:
            before, after = reference.run(given, outputs), reference.run(changed, outputs)
        except ValueError:
            continue
        if all(np.array_equal(before[name], after[name]) for name in outputs):
            return axis
    return None


def _changed(array: Array, shape: Sequence[int | str], axis: str, first: int) -> Array:
    """The array with other values from `first` on along an axis: larger floats, otherwise the values in front."""
    if axis not in shape:
        return array
    array, position = array.copy(), shape.index(axis)
    behind = (slice(None),) * position + (slice(first, None),)
    in_front = (slice(None),) * position + (slice(1),)
    array[behind] = array[behind] + 1 if array.dtype.kind == "f" else array[in_front]
    return array
