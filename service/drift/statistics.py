"""Statistics of the inputs of a model: a few numbers that say what an item is like, by the reader of the model.

Invariant: the statistics of an item depend on the item alone, not on its neighbours. Sums are exact, or of float64.

Shapes: N items, H height, W width, T steps (of all items, where arrays are of all), C channels.
"""

from collections.abc import Mapping, Sequence
from math import isqrt, prod
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from service.contract.readers import ImageReader, SeriesReader, TableReader, TextReader
from service.contract.tensors import TensorSpec
from service.manifest import Manifest

# By the name of the statistic, a value an item; the value of a category is its index.
Values: TypeAlias = Mapping[str, npt.NDArray[Any]]
Array: TypeAlias = npt.NDArray[Any]
# Of a regular grid over a picture. The sum of as many squares is below 2^24, so that float32 adds them exactly.
MAX_GRID_PIXELS = 256
CHANNELS = ("red", "green", "blue")
# A tensor of at most so many numbers an item has a statistic for each of them.
MAX_ELEMENTS = 64
# Larger numbers of a tensor count as this one, so that no sum of their squares overflows.
MAX_NUMBER = 1e100
# A variance below this share of the mean square is what float64 has rounded.
ROUNDING = 1e-12
LENGTH, UNKNOWN, CHARACTERS = "length", "share of unknown tokens", "characters a token"


def statistic_names(manifest: Manifest) -> tuple[str, ...]:
    """The statistics of a model's inputs, in order; none for a model that generates."""
    reader = manifest.reader
    if manifest.task == "generate":
        return ()
    if isinstance(reader, ImageReader):
        return ("brightness", "contrast", *(CHANNELS if reader.mode == "RGB" else ()))
    if isinstance(reader, SeriesReader):
        measures = ("mean", "deviation", "minimum", "maximum")
        return (LENGTH, *(f"{measure} of channel {i}" for i in range(reader.channels) for measure in measures))
    if isinstance(reader, TextReader):
        return (LENGTH, UNKNOWN, CHARACTERS)
    if isinstance(reader, TableReader):
        return (*(column.name for column in reader.numbers), *(column.name for column in reader.categories))
    return tuple(name for spec in manifest.inputs for name in _tensor_names(spec))


def image_values(images: Array | Sequence[Array]) -> Values:
    """Statistics of images uint8 [N, H, W(, 3)], or a sequence of images of several sizes.

    Each is measured on a regular grid of at most MAX_GRID_PIXELS pixels.
    """
    if not isinstance(images, np.ndarray):
        parts = [image_values(image[None]) for image in images]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}
    step = _grid_step(*images.shape[1:3])
    grid = images[:, ::step, ::step]
    channels = [grid] if grid.ndim == 3 else [grid[..., i] for i in range(grid.shape[3])]
    sums, squares = [], []
    for channel in channels:
        pixels = channel.astype(np.float32).reshape(len(images), -1)
        sums.append(pixels.sum(axis=1).astype(np.float64))
        squares.append(np.einsum("ij,ij->i", pixels, pixels).astype(np.float64))
    size = grid.shape[1] * grid.shape[2]
    mean = sum(sums) / (size * len(sums))
    variance = sum(squares) / (size * len(sums)) - mean * mean
    values = {"brightness": mean, "contrast": np.sqrt(np.maximum(variance, 0))}
    if len(sums) > 1:
        values |= {name: total / size for name, total in zip(CHANNELS, sums, strict=True)}
    return values


def series_values(series: Sequence[Array]) -> Values:
    """Statistics of series [T, C], which differ in T and have at least one step."""
    if not series:
        return {}
    lengths = np.array([len(one) for one in series], np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    # One channel after the other, because numpy adds numbers fastest that lie beside each other.
    steps_CT = np.ascontiguousarray(np.concatenate(series).T)
    exact_CT = steps_CT.astype(np.float64)
    mean_CN = np.add.reduceat(exact_CT, starts, axis=1) / lengths
    square_CN = np.add.reduceat(np.square(exact_CT), starts, axis=1) / lengths
    variance_CN = square_CN - np.square(mean_CN)
    variance_CN[variance_CN < ROUNDING * square_CN] = 0
    measures = {
        "mean": mean_CN,
        "deviation": np.sqrt(variance_CN),
        "minimum": np.minimum.reduceat(steps_CT, starts, axis=1),
        "maximum": np.maximum.reduceat(steps_CT, starts, axis=1),
    }
    by_channel = {
        f"{measure} of channel {i}": values_CN[i]
        for i in range(len(steps_CT))
        for measure, values_CN in measures.items()
    }
    return {LENGTH: lengths, **by_channel}


def text_values(ids: Sequence[Sequence[int]], texts: Sequence[str], *, unknown_id: int | None) -> Values:
    """Statistics of the token ids of texts; `unknown_id` is the token for unknown ones. The texts may be absent."""
    lengths = np.array([len(row) for row in ids], np.int64)
    values: dict[str, Array] = {LENGTH: lengths}
    if unknown_id is not None:
        counts = np.array([sum(token == unknown_id for token in row) for row in ids], np.int64)
        values[UNKNOWN] = counts / np.maximum(lengths, 1)
    if len(texts) == len(ids):
        values[CHARACTERS] = np.array([len(text) for text in texts], np.int64) / np.maximum(lengths, 1)
    return values


def table_values(reader: TableReader, inputs: Mapping[str, Array]) -> Values:
    """The columns of a table as its reader makes them: `numbers` [N, n], `categories` [N, m]."""
    numbers = {column.name: inputs["numbers"][:, i] for i, column in enumerate(reader.numbers) if inputs}
    categories = {column.name: inputs["categories"][:, i] for i, column in enumerate(reader.categories) if inputs}
    return {**numbers, **categories}


def tensor_values(specs: Sequence[TensorSpec], rows: Sequence[Mapping[str, Array]]) -> Values:
    """Statistics of tensors; a row has every tensor for one item, with the rows as its first axis."""
    if not rows:
        return {}
    values: dict[str, Array] = {}
    for spec in specs:
        names = _tensor_names(spec)
        measured = np.array([_measure_tensor(spec, row[spec.name]) for row in rows], np.float64)
        values |= {name: measured[:, i] for i, name in enumerate(names)}
    return values


def _grid_step(height: int, width: int) -> int:
    """The distance of the points of a grid that has at most MAX_GRID_PIXELS."""
    step = max(1, isqrt(height * width // MAX_GRID_PIXELS))
    while -(-height // step) * -(-width // step) > MAX_GRID_PIXELS:
        step += 1
    return step


def _is_small(spec: TensorSpec) -> bool:
    """Whether each number of the tensor has a statistic of its own."""
    sizes = [axis for axis in spec.row_shape if isinstance(axis, int)]
    return len(sizes) == len(spec.row_shape) and prod(sizes) <= MAX_ELEMENTS


def _tensor_names(spec: TensorSpec) -> list[str]:
    if spec.dtype == "string":
        return [f"characters of {spec.name}"]
    if not _is_small(spec):
        return [f"mean of {spec.name}", f"deviation of {spec.name}"]
    count = prod(axis for axis in spec.row_shape if isinstance(axis, int))
    return [f"{spec.name}[{i}]" for i in range(count)] if spec.row_shape else [spec.name]


def _measure_tensor(spec: TensorSpec, value: Array) -> list[float]:
    if spec.dtype == "string":
        return [float(sum(len(text) for text in value.ravel()))]
    flat = value.ravel().astype(np.float64).clip(-MAX_NUMBER, MAX_NUMBER)
    return flat.tolist() if _is_small(spec) else [float(flat.mean()), float(flat.std())]
