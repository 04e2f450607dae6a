"""The specs of a graph from elsewhere: dtypes and axes as it declares them, as far as golden cases exercise them.

A free axis without a name gets one. An axis that has one size in every case is refused, because nothing shows that it
is free. The first free axis of an input, in front, is the batch, unless one is called so.
"""

import re
from collections.abc import Mapping, Sequence

from export.source import Array
from export.sources.onnx_file.graph import Axis, Value
from export.spec import TensorPart
from service.contract.tensors import BATCH

BATCH_NAMES = {BATCH, "batch_size", "N", "n", "None", "bs", "unk__0"}
# The sizes of an axis in each case.
Signature = tuple[int, ...]
Arrays = Sequence[Mapping[str, Array]]


def input_axes(values: Sequence[Value], cases: Arrays) -> tuple[TensorPart, ...]:
    """The inputs with names for their free axes. Raises ValueError for an axis that is not exercised at two sizes."""
    named: dict[str, Signature] = {}
    unnamed: dict[tuple[str, int], Signature] = {}
    for value in values:
        _check_arrays(value, [case[value.name] for case in cases])
        for position, axis in enumerate(value.axes):
            sizes = tuple(case[value.name].shape[position] for case in cases)
            if isinstance(axis, str) and named.setdefault(axis, sizes) != sizes:
                raise ValueError(
                    f"the axis {axis!r} has the sizes {_listed(named[axis])} and {_listed(sizes)} in the same cases"
                )
            if axis is None:
                unnamed[value.name, position] = sizes
    batch = next((axis for axis in named if axis in BATCH_NAMES), None) or _first_free_axis(values)
    names: dict[tuple[str, int], str] = {}
    for value in values:
        for position, axis in enumerate(value.axes):
            if not isinstance(axis, int):
                sizes = named[axis] if axis is not None else unnamed[value.name, position]
                is_batch = axis == batch if axis is not None else position == 0 and batch in {None, ""}
                names[value.name, position] = BATCH if is_batch else _axis_name(axis, value.name, position)
                _check_exercised(names[value.name, position], value.name, sizes)
    names = _unified(names, named, unnamed)
    return tuple(
        TensorPart(
            name=value.name,
            dtype=value.dtype,
            shape=tuple(names.get((value.name, i), axis or 0) for i, axis in enumerate(value.axes)),
        )
        for value in values
    )


def check_declared(parts: Sequence[TensorPart], values: Sequence[Value], cases: Arrays) -> None:
    """Raise ValueError unless declared inputs are those of the graph, each free axis exercised at two sizes."""
    by_name = {value.name: value for value in values}
    if {part.name for part in parts} != set(by_name):
        raise ValueError(
            f"[[reader.inputs]] are {', '.join(part.name for part in parts)}, the graph has {', '.join(by_name)}"
        )
    for part in parts:
        value = by_name[part.name]
        _check_arrays(value, [case[part.name] for case in cases])
        matches = len(part.shape) == len(value.axes) and part.dtype == value.dtype
        if not matches or any(
            isinstance(declared, int) and declared != axis
            for declared, axis in zip(value.axes, part.shape, strict=True)
        ):
            axes = [axis if axis is not None else "?" for axis in value.axes]
            raise ValueError(
                f"[[reader.inputs]] {part.name} is {part.dtype} {list(part.shape)}, "
                f"the graph takes {value.dtype} {axes}"
            )
        for position, axis in enumerate(part.shape):
            if isinstance(axis, str):
                _check_exercised(axis, part.name, tuple(case[part.name].shape[position] for case in cases))


def check_exercised(values: Sequence[Value], cases: Arrays) -> None:
    """Raise ValueError if a free axis of the graph's own inputs has one size in every case."""
    for value in values:
        _check_arrays(value, [case[value.name] for case in cases])
    for part in named_axes(values):
        for position, axis in enumerate(part.shape):
            if isinstance(axis, str):
                _check_exercised(axis, part.name, tuple(case[part.name].shape[position] for case in cases))


def named_axes(values: Sequence[Value]) -> tuple[TensorPart, ...]:
    """The inputs with names for their free axes, as the graph calls them; the first axis is the batch."""
    return tuple(
        TensorPart(
            name=value.name,
            dtype=value.dtype,
            shape=tuple(
                axis if isinstance(axis, int) else BATCH if i == 0 else _axis_name(axis, value.name, i)
                for i, axis in enumerate(value.axes)
            ),
        )
        for value in values
    )


def axis_sizes(parts: Sequence[TensorPart], cases: Arrays) -> list[dict[str, int]]:
    """The size of every free axis in each case."""
    return [
        {
            axis: case[part.name].shape[position]
            for part in parts
            for position, axis in enumerate(part.shape)
            if isinstance(axis, str)
        }
        for case in cases
    ]


def output_axes(values: Sequence[Value], sizes: Sequence[Mapping[str, int]], cases: Arrays) -> tuple[TensorPart, ...]:
    """The outputs; their free axes are those of the inputs. Raises ValueError for one that is not."""
    parts = []
    for value in values:
        shapes = [case[value.name].shape for case in cases]
        axes = [
            _output_axis(value, position, tuple(shape[position] for shape in shapes), sizes)
            for position in range(len(value.axes))
        ]
        if any(BATCH in one for one in sizes) and BATCH not in axes:
            raise ValueError(
                f"output {value.name!r} has no batch axis, so that it cannot be told which row it belongs to; leave it "
                "out by naming the others in [[head.outputs]] of the spec"
            )
        parts.append(TensorPart(name=value.name, dtype=value.dtype, shape=tuple(axes)))
    return tuple(parts)


def _output_axis(value: Value, position: int, seen: Signature, sizes: Sequence[Mapping[str, int]]) -> int | str:
    if len(set(seen)) == 1 and isinstance(value.axes[position], int | None):
        return seen[0]
    matching = [axis for axis in sizes[0] if tuple(one[axis] for one in sizes) == seen]
    declared = value.axes[position]
    if isinstance(declared, str) and declared in matching:
        return declared
    if matching:
        return BATCH if BATCH in matching and position == 0 else matching[0]
    if len(set(seen)) == 1:
        return seen[0]
    raise ValueError(
        f"axis {position} of output {value.name!r} varies ({_listed(seen)}) and is no axis of the inputs; name it in "
        "[[head.outputs]] and bound it in [limits.axes] of the spec"
    )


def _first_free_axis(values: Sequence[Value]) -> str | None:
    """The name of the first axis of the first input that has a free one in front; "" if it has none."""
    axis: Axis = next((value.axes[0] for value in values if value.axes and not isinstance(value.axes[0], int)), None)
    return axis if isinstance(axis, str) else ""


def _axis_name(axis: Axis, name: str, position: int) -> str:
    return re.sub("[^A-Za-z0-9_]+", "_", axis if isinstance(axis, str) else f"{name}_{position}").strip("_")


def _unified(
    names: dict[tuple[str, int], str], named: Mapping[str, Signature], unnamed: Mapping[tuple[str, int], Signature]
) -> dict[tuple[str, int], str]:
    """An unnamed axis that always has the size of another one is that axis."""
    first: dict[Signature, str] = {sizes: _axis_name(axis, "", 0) for axis, sizes in named.items()}
    result = dict(names)
    for key, sizes in unnamed.items():
        if names[key] != BATCH:
            result[key] = first.setdefault(sizes, names[key])
    return result


def _check_arrays(value: Value, arrays: Sequence[Array]) -> None:
    for array in arrays:
        dtype = "string" if array.dtype.kind in "OU" else str(array.dtype)
        matches = len(value.axes) == array.ndim and all(
            declared == size
            for declared, size in zip(value.axes, array.shape, strict=True)
            if isinstance(declared, int)
        )
        if not matches or dtype != value.dtype:
            axes = [axis if axis is not None else "?" for axis in value.axes]
            raise ValueError(
                f"golden {value.name!r} is {dtype} {list(array.shape)}, the graph takes {value.dtype} {axes}"
            )


def _check_exercised(axis: str, name: str, sizes: Signature) -> None:
    if len(set(sizes)) < 2:
        raise ValueError(
            f"the axis {axis!r} of input {name!r} has the size {sizes[0]} in every golden case; add a case of another "
            "size, because an axis that is never exercised may be frozen in the graph"
        )


def _listed(sizes: Signature) -> str:
    return ", ".join(map(str, sizes))
