"""Small graphs with weights that a precision converts, and sessions of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]


def model(
    nodes: Sequence[onnx.NodeProto],
    weights: Mapping[str, Array],
    *,
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Mapping[str, Sequence[int | str]],
) -> bytes:
    """A model of opset 20; inputs called `ids` or `lengths` are int64 and int32, all others float32."""
    types = {"ids": TensorProto.INT64, "lengths": TensorProto.INT32}
    taken, given = (
        [helper.make_tensor_value_info(name, types.get(name, TensorProto.FLOAT), shape) for name, shape in side.items()]
        for side in (inputs, outputs)
    )
    stored = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    graph = helper.make_graph(nodes, "g", taken, given, stored)
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)]).SerializeToString()


def product(operator: str = "MatMul", *, width: int = 100, height: int = 48, **attributes: Any) -> bytes:
    """y = x W, or with "Gemm" x W + b."""
    rng = np.random.default_rng(0)
    shape = (height, width) if attributes.get("transB") else (width, height)
    weights = {"w": (rng.standard_normal(shape) / np.sqrt(width)).astype(np.float32)}
    if operator == "Gemm":
        weights["b"] = rng.standard_normal(height).astype(np.float32)
    node = helper.make_node(operator, ["x", *weights], ["y"], **attributes)
    return model([node], weights, inputs={"x": ["batch", width]}, outputs={"y": ["batch", height]})


def run(content: bytes, inputs: Mapping[str, Array]) -> Array:
    """The first output."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    [output, *_] = session.run(None, dict(inputs))
    return np.asarray(output)


def operators(content: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_from_string(content).graph.node]
