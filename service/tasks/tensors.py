"""A model's raw tensors as a client sends them: what the graph may be given, and what not.

Invariant: tensors whose shapes `read_rules` and whose values `check_values` let pass have the types, axes, lengths,
token ids and finite numbers that the manifest declares, within its limits, so the graph cannot fail on them and no row
can harm another.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from service.bundle import Manifest, TensorSpec
from service.tasks.body import refuse

Array = npt.NDArray[Any]
DTYPES = {name: np.dtype(name) for name in ("uint8", "int64", "float32")}


def shape_problem(shape: Sequence[int], spec: TensorSpec) -> str | None:
    """What is expected of a tensor of this spec, if `shape` is something else."""
    fits = len(shape) == len(spec.shape) and all(
        isinstance(axis, str) or axis == size for axis, size in zip(spec.shape, shape, strict=True)
    )
    return None if fits else f"expected shape [{', '.join(map(str, spec.shape))}], got {list(shape)}"


class Rule(NamedTuple):
    """What the values of one tensor must be: `least` to `most`, or finite if these are None."""

    name: str
    where: str
    least: int | None = None
    most: int | None = None


def read_rules(shapes: Mapping[str, Sequence[int]], manifest: Manifest, where: Mapping[str, str]) -> tuple[Rule, ...]:
    """The rules for the values of tensors of these names and shapes; `where` points at each in the request.

    Raises EkibenError("invalid-request") that names the tensor whose shape does not go with the limits or with others.
    """
    sizes: dict[str, tuple[int, str]] = {}
    rules: list[Rule] = []
    for spec in manifest.inputs:
        for axis, size in zip(spec.shape, shapes[spec.name], strict=True):
            if isinstance(axis, str):
                first, name = sizes.setdefault(axis, (size, spec.name))
                if first != size:
                    raise refuse(where[spec.name], f"expected {axis} = {first} as in {name!r}, got {size}")
                _check_size(axis, size, manifest, where[spec.name])
        if spec.dtype == "float32":
            rules.append(Rule(spec.name, where[spec.name]))
    steps = sizes.get("steps", (0, ""))[0]
    if "ids" in shapes:
        rules.append(Rule("ids", where["ids"], 0, manifest.parameters.vocabulary - 1))  # type: ignore[union-attr]
    if "lengths" in shapes:
        rules.append(Rule("lengths", where["lengths"], 1, steps))
    if "past_lengths" in shapes:
        longest = manifest.limits.max_steps
        room = sizes["past"][0] if longest is None else min(sizes["past"][0], longest - steps)
        rules.append(Rule("past_lengths", where["past_lengths"], 0, room))
    return tuple(rules)


def check_values(tensors: Mapping[str, Array], rules: Sequence[Rule]) -> None:
    """Raises EkibenError("invalid-request") that names the tensor and the place of its first wrong value."""
    for name, where, least, most in rules:
        if least is None or most is None:
            _check_finite(tensors[name], where)
        else:
            _check_range(tensors[name], least, most, where)


def clear_padding(outputs: Mapping[str, Array], inputs: Mapping[str, Array], manifest: Manifest) -> None:
    """Zero what an output has beyond a row's length: it means nothing, and would differ with the row's batch."""
    if "lengths" in inputs:
        for spec in manifest.outputs:
            if spec.name in outputs and spec.shape[1:2] == ("steps",):
                output = outputs[spec.name]
                output[np.arange(output.shape[1]) >= inputs["lengths"][:, None]] = 0


def _check_size(axis: str, size: int, manifest: Manifest, where: str) -> None:
    most = manifest.limits.max_items if axis == "batch" else manifest.limits.max_steps
    least = 0 if axis == "past" else 1
    if size < least or (most is not None and size > most):
        raise refuse(where, f"expected a {axis} axis of {least} to {most}, got {size}")


def _check_finite(tensor: Array, where: str) -> None:
    if math.isfinite(np.vdot(tensor, tensor)):  # the quick look; the square of a finite number may not be
        return
    wrong = ~np.isfinite(tensor)
    if wrong.any():
        at = np.argwhere(wrong)[0].tolist()
        raise refuse(where, f"expected finite numbers, got {tensor[tuple(at)]} at {at}")


def _check_range(tensor: Array, least: int, most: int, where: str) -> None:
    if tensor.size == 1:
        fits = least <= tensor.item() <= most
    else:
        fits = not tensor.size or (least <= tensor.min() and tensor.max() <= most)
    if not fits:
        at = np.argwhere((tensor < least) | (tensor > most))[0].tolist()
        raise refuse(where, f"expected {least} to {most}, got {tensor[tuple(at)]} at {at}")
