"""The test items of a source as rows of a batch: each of its own size, cut or repeated to the sizes of the batch.

The items of a source are zero-padded to the largest. The sizes of an item along a free axis are in the array `lengths`
for steps, or in the array that is called like the axis.
"""

import numpy as np

from export.gates.inputs.sizes import Sizes
from export.source import Array, Source
from service.contract.heads import LanguageModelHead
from service.contract.readers import SeriesReader
from service.contract.tensors import TensorSpec
from service.manifest import Manifest


def item_sizes(source: Source, manifest: Manifest, item: int) -> dict[str, int]:
    """The size of a test item along each free axis that its inputs have, its steps included."""
    inputs, sizes = source.examples.inputs, dict[str, int]()
    names = {spec.name for spec in manifest.inputs}
    has_lengths = manifest.is_ragged or isinstance(manifest.head, LanguageModelHead)
    for spec in manifest.inputs:
        for number, axis in enumerate(spec.row_shape, start=1):
            if isinstance(axis, str) and axis not in sizes and spec.name in inputs:
                key = "lengths" if axis == "steps" and has_lengths else axis
                is_given = key in inputs and (key not in names or key == "lengths")
                sizes[axis] = int(inputs[key][item]) if is_given else inputs[spec.name].shape[number]
    return sizes


def overlay_item(  # noqa: PLR0917
    source: Source, manifest: Manifest, inputs: dict[str, Array], row: int, item: int, steps: int | None
) -> None:
    """Overwrite one row with a test item, in its initial state. `steps` are those of a row with a length of its own."""
    own_sizes = item_sizes(source, manifest, item)
    for spec in manifest.inputs:
        array = inputs.get(spec.name)
        if array is None or (steps is not None and spec.name == "lengths"):
            continue
        if isinstance(manifest.reader, SeriesReader) and spec.name in {"h", "c"}:
            # A test item is a whole sequence, so it starts from the initial state.
            array[row] = 0
            continue
        values = _unpadded(source.examples.inputs[spec.name][item], spec, own_sizes)
        if steps is not None and spec.row_shape[:1] == ("steps",):
            array[row, :steps] = fit(values, (steps, *array.shape[2:]))
        else:
            array[row] = fit(values, array.shape[1:])


def fit(values: Array, shape: tuple[int, ...]) -> Array:
    """The values cut, or repeated from their beginning, to this shape."""
    for axis, size in enumerate(shape):
        if values.shape[axis] != size:
            values = values.take(np.arange(size) % values.shape[axis], axis)
    return values


def _unpadded(values: Array, spec: TensorSpec, sizes: Sizes) -> Array:
    axes = spec.row_shape
    return values[tuple(slice(sizes[axis] if isinstance(axis, str) else None) for axis in axes)]
