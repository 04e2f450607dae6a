"""An editor changes a copy, gives new names, and drops the initializers that nothing reads any more."""

import numpy as np
import onnx

from export.precision.graph_editor import GraphEditor
from tests.export.precision.graphs import product


def test_names_are_new_and_the_model_stays_as_it_was() -> None:
    content = onnx.load_from_string(product("Gemm"))
    editor = GraphEditor(content)
    assert editor.constant(np.zeros(3, np.float32), "w") == "w_1"
    assert editor.name("y") == "y_1"
    assert editor.node("Relu", ["x"], "y").output == ["y_2"]
    assert [tensor.name for tensor in content.graph.initializer] == ["w", "b"]


def test_weights_are_initializers_of_float32() -> None:
    editor = GraphEditor(onnx.load_from_string(product("Gemm")))
    assert editor.weights("x") is None
    assert editor.weights("w") is not None
    assert editor.weights(editor.constant(np.zeros(3, np.int64), "i")) is None


def test_replaced_nodes_stand_in_their_places_and_unread_initializers_go() -> None:
    editor = GraphEditor(onnx.load_from_string(product("Gemm")))
    relu = editor.node("Relu", ["x"], "relu")
    relu.output[0] = "y"
    graph = onnx.load_from_string(editor.replace_nodes({0: [relu]})).graph
    assert [node.op_type for node in graph.node] == ["Relu"]
    assert not graph.initializer
