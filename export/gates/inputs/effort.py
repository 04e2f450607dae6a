"""How many rows a part of a gate computes.

For a run there is no bound: its gates were measured at their full size. A model from elsewhere, or one with a data
file, may take seconds for an item, so each part of a gate computes about as many rows as WORK allows, spread evenly
over what it would compute. The estimate counts parameters and positions; it is the same on every machine, because it
decides what a bundle holds.
"""

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np

from export.candidate import Candidate
from export.gates.inputs.sizes import Sizes, longest_row
from service.contract.tensors import TensorSpec
from service.engine.verification.initializers import stored_tensors
from service.manifest import Manifest

T = TypeVar("T")
# Multiplications and additions of one part of a gate.
WORK = 2e11
# The bytes of all rows of one part of a gate.
MAX_BYTES = 96 << 20
MIN_ROWS = 64
MAX_OUTPUT_BYTES = 64 << 20
UNBOUNDED = 1 << 40
# Layers of convolutions halve the axes of a picture, so that a weight meets about one in this many of its pixels.
PIXELS_PER_POSITION = 1024


def max_rows(candidate: Candidate, sizes: Sizes, steps: int | None = None) -> int:
    """The number of rows of these sizes that one part of a gate computes, at least MIN_ROWS."""
    if candidate.source.run is not None and candidate.data is None:
        return UNBOUNDED
    longest = longest_row(candidate.manifest)
    steps = steps or (1 if longest is None else min(longest, 8))
    specs = candidate.manifest.inputs
    elements = max(row_elements(spec, {**sizes, "steps": steps}) for spec in specs)
    positions = max(steps, elements / PIXELS_PER_POSITION)
    work = 2 * num_parameters(candidate) * positions
    size_bytes = sum(row_elements(spec, {**sizes, "steps": steps}) * spec.numpy_dtype.itemsize for spec in specs)
    return max(MIN_ROWS, int(min(WORK / max(work, 1), MAX_BYTES / max(size_bytes, 1))))


def output_rows(manifest: Manifest, steps: int | None, max_batch: int) -> int:
    """At most how many rows of these steps run together: all their outputs fit into MAX_OUTPUT_BYTES.

    The outputs of a language model have a value for each token of the vocabulary at each step.
    """
    sizes = {"steps": steps or 1}
    size_bytes = sum(row_elements(spec, sizes) * spec.numpy_dtype.itemsize for spec in manifest.outputs)
    return max(1, min(max_batch, MAX_OUTPUT_BYTES // max(size_bytes, 1)))


def output_steps(manifest: Manifest, longest: int) -> int:
    """At most how many steps of one row have all their outputs computed: as many as fit into MAX_OUTPUT_BYTES."""
    step_bytes = sum(row_elements(spec, {"steps": 1}) * spec.numpy_dtype.itemsize for spec in manifest.outputs)
    return max(1, min(longest, MAX_OUTPUT_BYTES // max(step_bytes, 1)))


def row_elements(spec: TensorSpec, sizes: Sizes) -> int:
    """The number of elements of a row; axes without a size count once."""
    return int(np.prod([axis if isinstance(axis, int) else sizes.get(axis, 1) for axis in spec.row_shape]))


def num_parameters(candidate: Candidate) -> int:
    """The stored numbers of the model: those of its module, or of its graph if it came as a file."""
    module = candidate.source.module
    if module is not None:
        return sum(tensor.numel() for tensor in (*module.parameters(), *module.buffers()))
    return sum(tensor.size for tensor in stored_tensors(candidate.model, "float32"))


def sampled(build: Callable[[], Iterator[T]], count: int) -> Iterator[T]:
    """At most `count` of what `build` yields, evenly spaced. It is called twice if it yields more."""
    if count >= UNBOUNDED:
        return build()
    total = sum(1 for _ in build())
    chosen = set(np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist())
    return (one for number, one in enumerate(build()) if number in chosen)
