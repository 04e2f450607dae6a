"""Structured tensors of any dtype: zeros, ones, both ends, ties, and single values, at small and middling sizes.

One input is structured, and the others are those of a test item; then all inputs of floats together.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from export.gates.cases import Array
from export.gates.coverage.floats import of_test_items, patterns
from export.gates.coverage.row import Row
from export.gates.inputs.items import fit, item_sizes
from export.gates.inputs.sizes import Sizes, grid_sizes
from export.gates.inputs.values import within_domain
from export.source import Source
from service.contract.tensors import FLOATS, TensorSpec
from service.manifest import Manifest, ValueRange

NUM_TEST_ITEMS = 6
MAX_TEXTS = 64
# Of larger tensors, this many single values are tried.
MAX_SINGLE = 256


def tensor_rows(source: Source, manifest: Manifest, domain: Mapping[str, ValueRange]) -> Iterator[Row]:
    """All structured rows of the declared inputs."""
    for sizes in grid_sizes(manifest)[:2]:
        items = [_item(source, manifest, item % len(source.examples), sizes) for item in range(NUM_TEST_ITEMS)]
        free = "".join(f", {axis} {size}" for axis, size in sizes.items())
        for spec in manifest.inputs:
            largest = _largest(source.examples.inputs[spec.name])
            values = _structured(source, spec, [item[spec.name] for item in items], domain.get(spec.name))
            for number, (name, array) in enumerate(values):
                allowed = within_domain(manifest, spec.name, array)
                yield Row(
                    name=f"{spec.name}: {name}{free}",
                    inputs={**items[number % len(items)], spec.name: allowed},
                    is_extreme=_largest(allowed) > largest,
                )
        yield from _all_floats(manifest, items[0], domain, free)


def _all_floats(
    manifest: Manifest, item: dict[str, Array], domain: Mapping[str, ValueRange], free: str
) -> Iterator[Row]:
    """All inputs of floats at the same end, or 0."""
    specs = [spec for spec in manifest.inputs if spec.dtype in FLOATS]
    for end in ("low", "high", "zero") if len(specs) > 1 else ():
        changed = {
            spec.name: np.full_like(item[spec.name], 0 if end == "zero" else getattr(domain[spec.name], end))
            for spec in specs
        }
        clipped = {name: within_domain(manifest, name, values) for name, values in changed.items()}
        yield Row(name=f"all inputs of floats {end}{free}", inputs={**item, **clipped}, is_extreme=end != "zero")


def _item(source: Source, manifest: Manifest, item: int, sizes: Sizes) -> dict[str, Array]:
    """A test item, cut or repeated to these sizes."""
    item_shape = item_sizes(source, manifest, item)
    row: dict[str, Array] = {}
    for spec in manifest.inputs:
        values = np.asarray(source.examples.inputs[spec.name][item])
        values = values[tuple(slice(item_shape[axis] if isinstance(axis, str) else None) for axis in spec.row_shape)]
        row[spec.name] = fit(values, tuple(sizes[axis] if isinstance(axis, str) else axis for axis in spec.row_shape))
    return row


def _structured(
    source: Source, spec: TensorSpec, items: list[Array], allowed: ValueRange | None
) -> Iterator[tuple[str, Array]]:
    shape, dtype = items[0].shape, spec.numpy_dtype
    examples = source.examples.inputs[spec.name]
    if spec.dtype in FLOATS:
        assert allowed is not None, "every input of floats has a domain"
        yield from _floats(items, allowed, dtype)
        return
    if spec.dtype == "string":
        for text in sorted(set(examples.ravel().tolist()))[:MAX_TEXTS]:
            yield f"the text {text[:40]!r} throughout", np.full(shape, text, object)
        return
    low, high = (False, True) if spec.dtype == "bool" else (examples.min(), examples.max())
    for value in dict.fromkeys((low, high, *([0, 1] if low <= 0 and high >= 1 else []))):
        yield f"all values {value}", np.full(shape, value, dtype)
    for index in _places(int(np.prod(shape))):
        for value, other in ((high, low), (low, high)):
            values = np.full(int(np.prod(shape)), other, dtype)
            values[index] = value
            yield f"value {index} alone {value}", values.reshape(shape)


def _floats(items: list[Array], allowed: ValueRange, dtype: np.dtype[np.generic]) -> Iterator[tuple[str, Array]]:
    shape = items[0].shape
    single = [item.astype(np.float32) for item in items]
    yield "all values 1", np.ones(shape, dtype)
    rows = list(patterns(shape, allowed))
    if shape:
        rows += of_test_items(single, allowed)
    for index in _places(int(np.prod(shape))):
        for value in (allowed.high, allowed.low):
            values = np.zeros(int(np.prod(shape)), np.float32)
            values[index] = value
            rows.append((f"value {index} alone at {value:g}", values.reshape(shape)))
    largest = max(_largest(item) for item in items)
    # The rows within the range of the test items come first, because a batch has rows of one kind.
    for name, values in sorted(rows, key=lambda row: _largest(row[1]) > largest):
        with np.errstate(over="ignore"):
            yield name, np.clip(values, allowed.low, allowed.high).astype(dtype)


def _places(count: int) -> list[int]:
    return np.unique(np.linspace(0, count - 1, min(count, MAX_SINGLE)).round().astype(int)).tolist() if count else []


def _largest(values: Array) -> float:
    return float(np.abs(values.astype(np.float64)).max(initial=0.0)) if values.dtype.kind in "fiu" else 0.0
