"""Checks that computed outputs have the axes that the manifest declares.

onnxruntime does not: a graph that drops or repeats rows for some inputs would give a row the answer of another one.
"""

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from service.bundle import Tensors
from service.contract.tensors import Specs


class OutputShapes:
    """The axes of outputs, which have the sizes of the inputs' axes of the same names. Other names are of any size."""

    def __init__(self, inputs: Specs, outputs: Specs) -> None:
        self._axes = {spec.name: spec.shape for spec in outputs}
        self._places: dict[str, tuple[str, int]] = {}  # axis -> an input that has it, and where
        for spec in inputs:
            for position, axis in enumerate(spec.shape):
                if isinstance(axis, str):
                    self._places.setdefault(axis, (spec.name, position))

    def check(self, inputs: Tensors, outputs: Mapping[str, npt.NDArray[Any]]) -> None:
        """Raise ValueError that names the output whose axes are others."""
        sizes: dict[int | str, int] = {
            axis: inputs[name].shape[position] for axis, (name, position) in self._places.items()
        }
        for name, value in outputs.items():
            shape, axes = value.shape, self._axes[name]
            expected = tuple([sizes.get(axis, axis) for axis in axes])
            if shape != expected and (
                len(shape) != len(axes)
                or any(one != size and not isinstance(one, str) for one, size in zip(expected, shape, strict=True))
            ):
                raise ValueError(f"output {name!r} has the axes {list(shape)}, expected {list(expected)}")
