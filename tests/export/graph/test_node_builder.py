"""Nodes and constants have names of their own, and compute what their names say."""

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper

from export.graph.node_builder import MIN_OPSET, NodeBuilder


def test_every_value_has_a_name_of_its_own_behind_the_prefix() -> None:
    build = NodeBuilder("a/")
    names = [build("Neg", "x"), build("Neg", "x"), build.floats(1.0), build.floats(1.0), build.integers(1)]
    assert len(set(names)) == len(names)
    assert all(name.startswith("a/") for name in names)
    assert [constant.dims for constant in build.constants] == [[1], [1], [1]]
    build.scalar(3)
    build.floats(0.5, is_scalar=True)
    build.floats((1.0, 2.0))
    assert [list(constant.dims) for constant in build.constants[3:]] == [[], [], [2]]


def test_step_mask_is_true_before_the_end_of_each_row() -> None:
    build = NodeBuilder("")
    mask = build.step_mask("x", "lengths")
    inputs = [
        helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", "steps", 2]),
        helper.make_tensor_value_info("lengths", onnx.TensorProto.INT64, ["batch"]),
    ]
    outputs = [helper.make_tensor_value_info(mask, onnx.TensorProto.BOOL, ["batch", "steps"])]
    graph = helper.make_graph(build.nodes, "g", inputs, outputs, build.constants)
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", MIN_OPSET)])
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": np.zeros((3, 4, 2), np.float32), "lengths": np.array([1, 4, 2])})
    assert found.astype(int).tolist() == [[1, 0, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0]]
