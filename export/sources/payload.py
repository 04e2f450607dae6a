"""The examples of a spec as the reader's canonical items, and the part of the contract that they determine.

A free axis needs examples at two sizes at least, because an axis that was never tried may be frozen in the graph.
Items of different sizes are zero-padded to the largest; `lengths`, or an array with the name of the axis, holds the
size of each.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from export.source import Array
from export.sources.examples import Examples, read_examples
from export.sources.targets import read_targets
from export.spec import ImagePart, SeriesPart, Spec, SpecError, TablePart, TensorPart, TensorsPart, TextPart
from service.contract.readers import ImageReader, Reader, SeriesReader, TableReader, TensorsReader, TextReader
from service.contract.tensors import NUMPY_DTYPES, Specs, TensorSpec
from service.manifest import AxisRange, RequestLimits
from training.recipe import Split


@dataclass(frozen=True, kw_only=True)
class Payload:
    """The reader, the inputs of its graph, the limits and the items. `tokenizer` is the text of tokenizer.json."""

    reader: Reader
    inputs: Specs
    limits: RequestLimits
    split: Split
    tokenizer: str | None = None


def read_payload(spec: Spec, path: Path) -> Payload:
    """Read the examples of a spec. Raises ValueError, one sentence with the file, the array and the item."""
    return make_payload(spec, read_examples(path, wanted_arrays(spec.reader)))


def make_payload(spec: Spec, examples: Examples) -> Payload:
    """The examples as canonical items. Raises ValueError, one sentence with the file, the array and the item."""
    part: Any = spec.reader
    tokenizer = None
    match part:
        case ImagePart():
            reader: Reader = _image_reader(part)
            arrays = _images(part, examples)
        case SeriesPart():
            reader = SeriesReader(channels=part.channels, state=part.state)
            arrays = _series(part, examples)
        case TextPart():
            tokenizer = read_tokenizer(part.tokenizer)
            arrays, vocabulary = _texts(part, spec, examples, tokenizer)
            reader = TextReader(vocabulary=vocabulary)
        case TablePart():
            reader = TableReader(columns=part.columns)
            arrays = _table(reader, examples)
        case _:
            reader = TensorsReader()
            arrays = _tensors(part, examples)
    inputs = _tensor_specs(part, examples) if isinstance(reader, TensorsReader) else reader.inputs
    split = Split(
        inputs=arrays,
        targets=read_targets(spec.head, examples),
        texts=tuple(map(str, _joined(examples, "texts"))) if isinstance(part, TextPart) else (),
    )
    return Payload(
        reader=reader,
        inputs=inputs,
        limits=_limits(spec, inputs, arrays, examples.path),
        split=split,
        tokenizer=tokenizer,
    )


def read_tokenizer(path: Path) -> str:
    """The tokenizer.json without its settings of truncation and padding, which the service makes itself."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content["truncation"] = content["padding"] = None
        return json.dumps(content, ensure_ascii=False)
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{path} is no tokenizer.json: {error}") from error


def wanted_arrays(part: Any) -> dict[str, bool] | None:
    """The arrays of the examples of this reader, and whether each is required."""
    match part:
        case ImagePart():
            return {"images": True}
        case SeriesPart():
            return {"series": True, "lengths": False}
        case TextPart():
            return {"texts": True}
        case TablePart():
            kinds = {column.kind for column in part.columns}
            return {name: True for name, kind in (("numbers", "number"), ("categories", "category")) if kind in kinds}
    return {tensor.name: True for tensor in part.inputs} or None


def _joined(examples: Examples, name: str) -> Array:
    return np.concatenate([group[name] for group in examples.groups])


def _image_reader(part: ImagePart) -> ImageReader:
    height, width = (size if isinstance(size, int) else None for size in (part.height, part.width))
    try:
        return ImageReader(height=height, width=width, mode=part.mode, resize=part.resize)
    except ValueError as error:
        raise SpecError(f"[reader] resize does not give pictures of {height} × {width}") from error


def _images(part: ImagePart, examples: Examples) -> dict[str, Array]:
    expected = "[items, height, width]" if part.mode == "L" else "[items, height, width, 3]"
    sizes = []
    for group in examples.groups:
        images = group["images"]
        if images.dtype != np.uint8:
            raise ValueError(
                f"{examples.path}: images are {images.dtype}, expected the pixels uint8 that a picture has, from 0 to "
                "255; [reader] scale, mean and std make what the model takes"
            )
        if images.ndim != (3 if part.mode == "L" else 4) or (part.mode == "RGB" and images.shape[3] != 3):
            raise ValueError(
                f"{examples.path}: images have the axes {list(images.shape)}, expected {expected} for mode {part.mode}"
            )
        sizes.append(images.shape[1:3])
        for key, actual, declared in zip(
            ("height", "width"), images.shape[1:3], (part.height, part.width), strict=True
        ):
            low, high = (declared, declared) if isinstance(declared, int) else declared
            if not low <= actual <= high:
                allowed = low if low == high else f"{low} to {high}"
                raise ValueError(f"{examples.path}: pictures have a {key} of {actual}, [reader] {key} is {allowed}")
    arrays = {"images": _padded([group["images"] for group in examples.groups])}
    for axis, declared in enumerate((part.height, part.width)):
        if not isinstance(declared, int):
            counts = [len(group["images"]) for group in examples.groups]
            arrays[("height", "width")[axis]] = np.repeat([size[axis] for size in sizes], counts).astype(np.int64)
    return arrays


def _padded(groups: list[Array]) -> Array:
    """All items in one array, with zeros behind the end of smaller ones."""
    if len({group.ndim for group in groups}) > 1:
        raise ValueError("the groups of the examples have different numbers of axes")
    largest = np.max([group.shape[1:] for group in groups], axis=0)
    padding = [
        [(0, 0), *((0, int(size - extent)) for extent, size in zip(group.shape[1:], largest, strict=True))]
        for group in groups
    ]
    return np.concatenate([np.pad(group, pad) for group, pad in zip(groups, padding, strict=True)])


def _series(part: SeriesPart, examples: Examples) -> dict[str, Array]:
    all_series, all_lengths = [], []
    for group in examples.groups:
        series = group["series"]
        if series.ndim != 3 or series.shape[2] != part.channels or series.dtype.kind not in "fiu":
            raise ValueError(
                f"{examples.path}: series are {series.dtype} {list(series.shape)}, expected numbers "
                f"[items, steps, {part.channels}], zero-padded, with lengths"
            )
        lengths = group.get("lengths", np.full(len(series), series.shape[1]))
        is_whole = lengths.ndim == 1 and lengths.dtype.kind in "iu"
        if not is_whole or lengths.min() < 1 or lengths.max() > series.shape[1]:
            raise ValueError(f"{examples.path}: lengths are not from 1 to {series.shape[1]}, one for each item")
        all_series.append(_float32("series", series, examples.path))
        all_lengths.append(lengths.astype(np.int64))
    return {"series": _padded(all_series), "lengths": np.concatenate(all_lengths)}


def _texts(part: TextPart, spec: Spec, examples: Examples, content: str) -> tuple[dict[str, Array], int]:
    texts = _joined(examples, "texts")
    if texts.dtype.kind != "U":
        raise ValueError(f"{examples.path}: texts are {texts.dtype}, expected an array of str in a .npz file")
    tokenizer = Tokenizer.from_str(content)
    rows = [encoding.ids for encoding in tokenizer.encode_batch([str(text) for text in texts])]
    if spec.limits.max_steps is not None:
        rows = [row[: spec.limits.max_steps] for row in rows]
    if (empty := next((item for item, row in enumerate(rows) if not row), None)) is not None:
        raise ValueError(f"{examples.path}: text {empty} has no tokens: {str(texts[empty])[:40]!r}")
    ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
    for padded, row in zip(ids, rows, strict=True):
        padded[: len(row)] = row
    vocabulary = part.vocabulary or max(tokenizer.get_vocab().values()) + 1
    return {"ids": ids, "lengths": np.array([len(row) for row in rows], np.int64)}, vocabulary


def _table(reader: TableReader, examples: Examples) -> dict[str, Array]:
    arrays = {}
    if reader.numbers:
        numbers = _joined(examples, "numbers")
        _check_columns("numbers", numbers, len(reader.numbers), examples.path)
        arrays["numbers"] = _float32("numbers", numbers, examples.path)
    if reader.categories:
        values = _joined(examples, "categories")
        _check_columns("categories", values, len(reader.categories), examples.path)
        codes = [
            _codes(values[:, i], column.values, column.name, examples.path)
            for i, column in enumerate(reader.categories)
        ]
        arrays["categories"] = np.stack(codes, 1)
    return arrays


def _float32(name: str, array: Array, path: Path) -> Array:
    """The numbers as a model gets them."""
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{path}: {name} are {array.dtype}, expected numbers")
    if array.size and np.abs(array).max() > np.finfo(np.float32).max:
        raise ValueError(f"{path}: {name} have a number beyond float32, in which the model computes")
    return array.astype(np.float32)


def _check_columns(name: str, array: Array, expected: int, path: Path) -> None:
    if array.ndim != 2 or array.shape[1] != expected:
        raise ValueError(f"{path}: {name} have the axes {list(array.shape)}, expected [items, {expected}]")


def _codes(values: Array, known: tuple[str, ...], column: str, path: Path) -> Array:
    """The index of each value; numbers are indices already."""
    if values.dtype.kind in "iu":
        if values.min() < 0 or values.max() >= len(known):
            raise ValueError(f"{path}: column {column!r} has index {values.max()}, expected 0 to {len(known) - 1}")
        return values.astype(np.int64)
    index = {value: i for i, value in enumerate(known)}
    if unknown := sorted({str(value) for value in values} - set(index)):
        raise ValueError(f"{path}: column {column!r} has the value {unknown[0]!r}, expected one of {', '.join(known)}")
    return np.array([index[str(value)] for value in values], np.int64)


def _tensors(part: TensorsPart, examples: Examples) -> dict[str, Array]:
    names = [tensor.name for tensor in part.inputs] or examples.names
    shapes: dict[str, Any] = {tensor.name: tensor.shape for tensor in part.inputs}
    arrays = {name: _padded([group[name] for group in examples.groups]) for name in names}
    for name, axes in shapes.items():
        rows = [axis for axis in axes if axis != "batch"]
        for position, axis in enumerate(rows, start=1):
            if isinstance(axis, str) and axis not in arrays:
                sizes = [np.full(len(group[name]), group[name].shape[position]) for group in examples.groups]
                arrays[axis] = np.concatenate(sizes).astype(np.int64)
    return arrays


def _tensor_specs(part: TensorsPart, examples: Examples) -> Specs:
    """The declared inputs, each checked against the examples, or those of the examples with a batch axis in front."""
    if not part.inputs:
        if len(examples.groups) > 1:
            raise ValueError(
                f"{examples.path} has items of several sizes; name the free axes in [[reader.inputs]] of the spec"
            )
        for name, array in examples.groups[0].items():
            if array.dtype not in NUMPY_DTYPES.values():
                raise ValueError(f"{examples.path}: {name} is {array.dtype}, expected one of {', '.join(NUMPY_DTYPES)}")
        return tuple(
            TensorSpec(name=name, dtype=str(array.dtype), shape=("batch", *array.shape[1:]))
            for name, array in examples.groups[0].items()
        )
    for tensor in part.inputs:
        for group in examples.groups:
            array = group[tensor.name]
            rows = ["items", *(axis for axis in tensor.shape if axis != "batch")]
            is_equal = array.ndim == len(rows) and all(
                isinstance(axis, str) or axis == size for axis, size in zip(rows, array.shape, strict=True)
            )
            dtype = "string" if array.dtype.kind in "OU" else str(array.dtype)
            if not is_equal or dtype != tensor.dtype:
                raise ValueError(
                    f"{examples.path}: {tensor.name} is {dtype} {list(array.shape)}, the spec says "
                    f"{tensor.dtype} {rows}"
                )
    return tuple(TensorSpec(name=tensor.name, dtype=tensor.dtype, shape=tensor.shape) for tensor in part.inputs)


def _limits(spec: Spec, inputs: Specs, arrays: dict[str, Array], path: Path) -> RequestLimits:
    """The limits of the spec and of its pictures. Raises ValueError for a free axis tried at one size only."""
    free = {axis for tensor in inputs for axis in tensor.shape if isinstance(axis, str)} - {"batch"}
    bounds = dict(spec.limits.axes)
    for axis in ("height", "width"):
        size = getattr(spec.reader, axis, None)
        if isinstance(size, tuple):
            bounds[axis] = size
    axes = {axis: _axis_range(axis, low, high, spec) for axis, (low, high) in bounds.items()}
    outputs: tuple[TensorPart, ...] = getattr(spec.head, "outputs", ())
    _check_multiples(spec, axes, arrays, path)
    known = free | {axis for output in outputs for axis in output.shape if isinstance(axis, str)} - {"batch"}
    if unknown := [axis for axis in spec.limits.axes if axis not in known]:
        listed = ", ".join(map(repr, sorted(known))) or "no axis"
        raise ValueError(f"[limits.axes] has {unknown[0]!r}; the model has {listed} free")
    max_steps = spec.limits.max_steps
    for axis in sorted(free):
        sizes = _sizes(axis, arrays)
        if len(set(sizes)) < 2 and not (axis in axes and axes[axis].min == axes[axis].max):
            at = f"of the one size {sizes[0]}" if sizes else "of no size"
            raise ValueError(
                f"{path} holds items {at} along the free axis {axis!r}; expected two sizes at least, because an axis "
                "that is never exercised may be frozen in the graph"
            )
        if axis == "steps" and axis not in axes:
            max_steps = max_steps or max(sizes)
        elif axis not in axes:
            raise ValueError(
                f"the axis {axis!r} has no bounds; say [limits.axes] {axis} = [{min(sizes)}, {max(sizes)}]"
            )
    return RequestLimits(max_items=spec.limits.max_items, max_steps=max_steps, axes=axes)


def _axis_range(axis: str, low: int, high: int, spec: Spec) -> AxisRange:
    multiple = spec.limits.multiple_of.get(axis, 1)
    if low % multiple or high % multiple:
        first, last = -(-low // multiple) * multiple, high // multiple * multiple
        raise ValueError(
            f"[limits.multiple_of] {axis} is {multiple}, so its bounds [{low}, {high}] are multiples of it, too; say "
            f"[{first}, {max(first, last)}]"
        )
    return AxisRange(min=low, max=high, multiple_of=multiple)


def _check_multiples(spec: Spec, axes: dict[str, AxisRange], arrays: dict[str, Array], path: Path) -> None:
    """Raise ValueError for an axis without bounds, or an example of another size."""
    for axis in spec.limits.multiple_of:
        if axis not in axes:
            listed = ", ".join(map(repr, axes)) or "no axis"
            raise ValueError(f"[limits.multiple_of] has {axis!r}; [limits.axes] or [reader] bounds {listed}")
        if others := [size for size in _sizes(axis, arrays) if size not in axes[axis]]:
            raise ValueError(f"{path} holds an item of the {axis} {others[0]}, the spec says {axes[axis]}")


def _sizes(axis: str, arrays: dict[str, Array]) -> list[int]:
    """The sizes of the examples along a free axis."""
    name = "lengths" if axis == "steps" and axis not in arrays else axis
    if name in arrays:
        return [int(size) for size in arrays[name]]
    return []
