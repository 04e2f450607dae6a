"""All examples of a source as cases: items of equal sizes share a batch, ragged ones with items of similar length."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from export.candidate import Candidate
from export.gates.cases import Array, Case, single_chunk
from export.gates.inputs.effort import row_elements
from export.gates.inputs.items import item_sizes, overlay_item
from export.gates.inputs.sizes import Sizes, clip_sizes, longest_row
from export.source import Source
from service.contract.heads import LanguageModelHead
from service.contract.tensors import TensorSpec
from service.manifest import Manifest

# Of one batch; the outputs count most, because a language model has a logit for each token of its vocabulary.
MAX_ITEMS, MAX_BYTES = 256, 64 << 20


@dataclass(frozen=True, kw_only=True)
class ExampleCase:
    """A batch of examples; `items` are their positions among all examples."""

    case: Case
    items: Array


def example_cases(candidate: Candidate) -> Iterator[ExampleCase]:
    """Every example once, cut to the limits of the model."""
    source, manifest = candidate.source, candidate.manifest
    longest = longest_row(manifest)
    by_sizes: dict[tuple[tuple[str, int], ...], list[tuple[int, int]]] = {}
    for item in range(len(source.examples)):
        sizes = item_sizes(source, manifest, item)
        steps = 0 if longest is None else min(sizes["steps"], longest)
        key = tuple(sorted(clip_sizes(manifest, sizes).items()))
        by_sizes.setdefault(key, []).append((steps, item))
    for key, members in by_sizes.items():
        members.sort(key=lambda member: member[0])
        sizes = {**dict(key), "steps": max(1, members[-1][0])}
        batch = min(MAX_ITEMS, manifest.limits.max_items, max(1, MAX_BYTES // _row_bytes(manifest, sizes)))
        for start in range(0, len(members), batch):
            yield _case(source, manifest, dict(key), members[start : start + batch])


def _case(source: Source, manifest: Manifest, sizes: Sizes, members: list[tuple[int, int]]) -> ExampleCase:
    has_steps = longest_row(manifest) is not None
    lengths = np.array([steps for steps, _ in members], np.int64)
    sizes = {**sizes, "steps": int(lengths.max())} if has_steps else sizes
    is_cached = isinstance(manifest.head, LanguageModelHead)
    specs = manifest.inputs
    if is_cached:
        specs = (manifest.inputs[0], TensorSpec(name="lengths", dtype="int64", shape=("batch",)))
    inputs: dict[str, Array] = {}
    for spec in specs:
        shape = (len(members), *(sizes[axis] if isinstance(axis, str) else axis for axis in spec.row_shape))
        inputs[spec.name] = np.full(shape, "", object) if spec.dtype == "string" else np.zeros(shape, spec.numpy_dtype)
    if has_steps:
        inputs["lengths"] = lengths
    for row, (steps, item) in enumerate(members):
        overlay_item(source, manifest, inputs, row, item, steps if has_steps else None)
    items = np.array([item for _, item in members])
    case = Case(
        name="by length" if has_steps else "in order",
        inputs=inputs,
        chunks=single_chunk(lengths) if is_cached else None,
        rows=tuple(f"item {item}" for item in items),
    )
    return ExampleCase(case=case, items=items)


def _row_bytes(manifest: Manifest, sizes: Sizes) -> int:
    specs = (*manifest.inputs, *manifest.outputs)
    return max(1, sum(row_elements(spec, sizes) * spec.numpy_dtype.itemsize for spec in specs))
