"""Makes nodes and constants of an ONNX graph, each value with a name of its own."""

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

# The operators that the builder's callers use have had these forms since opset 13.
MIN_OPSET = 13


class NodeBuilder:
    """Collects `nodes` and `constants`; every call adds one node and returns the name of its output."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def __call__(self, operator: str, *inputs: str, **attributes: Any) -> str:
        output = f"{self.prefix}{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name=output, **attributes))
        return output

    def floats(self, values: float | tuple[float, ...], *, is_scalar: bool = False) -> str:
        """A constant float32 vector, or one number without axes."""
        array = np.asarray(values, np.float32)
        return self._constant(array if is_scalar else array.reshape(-1))

    def integers(self, *values: int) -> str:
        """A constant int64 vector, such as axes."""
        return self._constant(np.array(values, np.int64))

    def texts(self, *values: str) -> str:
        """A constant vector of texts."""
        return self._constant(np.array(values, object))

    def scalar(self, value: int) -> str:
        """A constant int64 without axes."""
        return self._constant(np.asarray(value, np.int64))

    def steps(self, x: str) -> str:
        """0, 1, ... for each step of x [B, T, ...]: int64 [T]."""
        num_steps = self("Gather", self("Shape", x), self.scalar(1), axis=0)
        return self("Range", self.scalar(0), num_steps, self.scalar(1))

    def step_mask(self, x: str, lengths: str) -> str:
        """True at each step of x [B, T, ...] before the end of its row: bool [B, T]."""
        return self("Less", self.steps(x), self("Unsqueeze", lengths, self.integers(1)))

    def _constant(self, array: Any) -> str:
        name = f"{self.prefix}constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name
