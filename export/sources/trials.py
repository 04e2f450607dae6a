"""A few examples of one size, as inputs of the graph: what a model is tried with before anything is traced."""

from collections.abc import Iterator

import numpy as np

from export.source import Array
from export.sources.payload import Payload

# The size of each axis by its name.
Sizes = dict[str, int]


def take_items(payload: Payload, items: Array) -> tuple[Sizes, dict[str, Array]]:
    """These items as rows, with the sizes of their axes; items of one size, except for the steps of ragged ones."""
    arrays, sizes = payload.split.inputs, {"batch": len(items)}
    for axis in {axis for spec in payload.inputs for axis in spec.shape if isinstance(axis, str)} - {"batch"}:
        name = "lengths" if axis == "steps" and axis not in arrays else axis
        if name in arrays:
            sizes[axis] = int(arrays[name][items].max())
    inputs = {}
    for spec in payload.inputs:
        if spec.name in arrays:
            cut = (slice(sizes[axis]) if isinstance(axis, str) else slice(None) for axis in spec.row_shape)
            inputs[spec.name] = np.ascontiguousarray(arrays[spec.name][items][:, *cut])
        else:  # the state, in which a series starts
            inputs[spec.name] = np.zeros(
                [sizes[axis] if isinstance(axis, str) else axis for axis in spec.shape], np.float32
            )
    return sizes, inputs


def trials(payload: Payload) -> Iterator[tuple[Sizes, dict[str, Array]]]:
    """Two and three items of one size, then items of other sizes, at most one trial for each size."""
    arrays, num_items = payload.split.inputs, len(payload.split)
    free = free_axes(payload)
    keys = [tuple(int(arrays[axis][item]) for axis in free) for item in range(num_items)]
    for number, key in enumerate(dict.fromkeys(keys)):
        members = np.array([item for item in range(num_items) if keys[item] == key])
        lengths = arrays.get("lengths")
        if lengths is not None:
            members = members[np.argsort(lengths[members], kind="stable")]
        yield take_items(payload, members[:2])
        if number == 0:
            yield take_items(payload, members[-3:])
        if number == 3:
            return


def free_axes(payload: Payload) -> list[str]:
    """The axes along which a batch has one size: all free ones but `batch` and the steps of ragged items."""
    axes = dict.fromkeys(axis for spec in payload.inputs for axis in spec.row_shape if isinstance(axis, str))
    return [axis for axis in axes if axis in payload.split.inputs]
