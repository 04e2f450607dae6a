"""A few examples of one size, as inputs of the graph: what a model is tried with before anything is traced."""

from collections.abc import Iterator, Mapping
from math import gcd

import numpy as np

from export.source import Array, Predict
from export.sources.payload import Payload
from service.contract.tensors import Specs

# Sizes of a free axis that are tried, from the smallest.
NUM_SIZES = 17
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


def check_sizes(payload: Payload, outputs: Specs, predict: Predict) -> None:
    """Raise ValueError if the model fails at one of the smallest sizes of a free axis, with the multiples it takes."""
    ranges = {axis: payload.limits.axis_range(axis) for axis in free_axes(payload)}
    for axis, bounds in ranges.items():
        sizes = [bounds.clip(size) for size in range(bounds.min, bounds.min + NUM_SIZES * bounds.multiple_of)]
        reasons = {size: _failure_at(payload, {axis: size}, outputs, predict) for size in dict.fromkeys(sizes)}
        if failed := next((size for size, reason in reasons.items() if reason), None):
            answered = [size for size, reason in reasons.items() if not reason]
            multiple = gcd(*answered)
            declare = (
                f"it answers {', '.join(map(str, answered[:4]))}; where it takes multiples alone, say "
                f"[limits.multiple_of] {axis} = {multiple}"
                if multiple > bounds.multiple_of and len(answered) > 1
                else f"bound it in [limits.axes] to what it takes; examples have {_examples_of(payload, axis)}"
            )
            raise ValueError(f"the model fails at the {axis} {failed}, {declare}: {reasons[failed]}")


def _examples_of(payload: Payload, axis: str) -> str:
    """The sizes of the examples, in words."""
    sizes = payload.split.inputs[axis]
    return f"{sizes.min()} to {sizes.max()}"


def check_padding(payload: Payload, outputs: Specs, predict: Predict) -> None:
    """Raise ValueError if an output of steps has fewer of them where no row fills its batch."""
    lengths = payload.split.inputs.get("lengths")
    if lengths is None or not any("steps" in spec.shape for spec in outputs) or lengths.max() < 2:
        return
    sizes, inputs = take_items(payload, np.full(2, lengths.argmax()))
    ragged = [spec.name for spec in payload.inputs if spec.row_shape[:1] == ("steps",)]
    shorter = {name: np.where(np.arange(sizes["steps"]) < sizes["steps"] - 1, 1, 0) for name in ragged}
    for name, is_step in shorter.items():
        values = inputs[name]
        inputs[name] = values * is_step.reshape(1, -1, *[1] * (values.ndim - 2)).astype(values.dtype)
    inputs["lengths"] = inputs["lengths"] - 1
    if reason := _failure(inputs, sizes, outputs, predict):
        raise ValueError(
            f"the model loses the padding of a batch in which no row has all {sizes['steps']} steps: {reason}; "
            "pad_packed_sequence needs total_length=x.shape[1]"
        )


def _failure_at(payload: Payload, chosen: Mapping[str, int], outputs: Specs, predict: Predict) -> str:
    """Why two items of these sizes, cut or repeated, get no answer of the declared axes; "" if they do."""
    sizes, inputs = take_items(payload, np.zeros(2, np.int64))
    given = {}
    for spec in payload.inputs:
        array = inputs[spec.name]
        for position, axis in enumerate(spec.row_shape, start=1):
            if isinstance(axis, str) and axis in chosen:
                array = array.take(np.arange(chosen[axis]) % array.shape[position], axis=position)
        given[spec.name] = array
    return _failure(given, {**sizes, **chosen}, outputs, predict)


def _failure(inputs: Mapping[str, Array], sizes: Sizes, outputs: Specs, predict: Predict) -> str:
    """Why these rows get no answer of the declared axes; "" if they do."""
    try:
        answer = predict(inputs)
    # A foreign module may raise anything.
    except Exception as error:  # noqa: BLE001
        return " ".join(str(error).split())[:200] or type(error).__name__
    for spec in outputs:
        expected = [sizes.get(axis) if isinstance(axis, str) else axis for axis in spec.row_shape]
        found = answer[spec.name].shape[1:]
        if any(size not in {None, actual} for size, actual in zip(expected, found, strict=True)):
            return f"{spec.name} has the axes {list(found)}, expected {expected}"
    return ""
