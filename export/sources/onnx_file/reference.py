"""The reference of a graph from elsewhere: the file as it came, run by onnxruntime without any optimisation.

The given outputs come first: the reference must give them, element by element, before it counts as one.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn

from export.source import Array
from export.sources.onnx_file.graph import ForeignGraph
from export.spec import TolerancePart

FAILS = "the graph fails"


class Reference:
    """The session of the original file."""

    def __init__(self, path: Path) -> None:
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        try:
            self.session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        # onnxruntime raises bare subclasses of Exception.
        except Exception as error:
            raise ValueError(f"onnxruntime does not load {path}: {one_line(error)}") from error

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """The outputs by name. Raises ValueError with what onnxruntime says."""
        try:
            return dict(zip(outputs, self.session.run(list(outputs), dict(inputs)), strict=True))
        # onnxruntime raises bare subclasses of Exception.
        except Exception as error:
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in inputs.items())
            raise ValueError(f"{FAILS} for {shapes}: {one_line(error)}") from error

    def mismatch(
        self, inputs: Mapping[str, Array], expected: Mapping[str, Array], tolerance: TolerancePart
    ) -> str | None:
        """Say what is wrong with the outputs for a golden case, or None if all are right."""
        try:
            found = self.run(inputs, list(expected))
        except ValueError as error:
            return str(error)
        checked = (difference(name, found[name], array, tolerance) for name, array in expected.items())
        return next((reason for reason in checked if reason), None)


class ReferenceModule(nn.Module):
    """The reference as a module that an adapter of a reader and a head can call, by the names of the graph.

    Arguments get the dtypes of the graph, those of texts are indices of `texts`; floats that it returns become float32.
    """

    def __init__(self, graph: ForeignGraph, reference: Reference, texts: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self.dtypes = {value.name: value.dtype for value in graph.inputs}
        self.texts = {name: np.array(values, object) for name, values in texts.items()}
        self.outputs = [value.name for value in graph.outputs if value.dtype != "string"]
        self.reference = reference

    def forward(self, **arguments: Tensor) -> dict[str, Tensor]:
        found = self.reference.run(self.inputs(arguments), self.outputs)
        return {name: _as_float32(torch.from_numpy(array)) for name, array in found.items()}

    def inputs(self, arguments: Mapping[str, Tensor]) -> dict[str, Array]:
        """The arguments in the dtypes of the graph."""
        arrays = {name: value.numpy() for name, value in arguments.items()}
        typed = {
            name: self.texts[name][array]
            if self.dtypes[name] == "string"
            else array.astype(self.dtypes[name], copy=False)
            for name, array in arrays.items()
        }
        return {name: np.ascontiguousarray(array) for name, array in typed.items()}


def _as_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def difference(name: str, actual: Array, expected: Array, tolerance: TolerancePart) -> str | None:
    """Say where an output differs most from the expected one, or None if it is right everywhere."""
    if actual.shape != expected.shape:
        return f"output {name!r} has the shape {list(actual.shape)}, the golden one {list(expected.shape)}"
    if expected.dtype.kind in "fc" and actual.dtype.kind in "fc":
        distance = np.abs(actual.astype(np.float64) - expected)
        excess = distance - (tolerance.atol + tolerance.rtol * np.abs(expected))
        if not excess.size or excess.max() <= 0:
            return None
        place = np.unravel_index(int(excess.argmax()), excess.shape)
        given = f"{expected[place]:.6g}, the graph gives {actual[place]:.6g}"
        return f"output {name!r} at {[int(i) for i in place]}: the golden value is {given}"
    is_text = actual.dtype.kind in "OU"
    different = np.argwhere(actual.astype(str) != expected.astype(str) if is_text else actual != expected)
    if not len(different):
        return None
    place = tuple(different[0].tolist())
    return f"output {name!r} at {list(place)}: the golden value is {expected[place]}, the graph gives {actual[place]}"


def one_line(error: Any) -> str:
    return " ".join(str(error).split())[:300]
