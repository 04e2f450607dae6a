"""A graph in half precision takes and gives float32, and its reference has its weights."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from export.precision.half import half_graphs
from service.operators import check_operators
from tests.export.precision.graphs import model, product, run


@pytest.mark.parametrize("operator", ["MatMul", "Gemm"])
def test_a_product_in_half_precision_equals_its_reference(operator: str) -> None:
    content = product(operator)
    graphs = half_graphs(content)
    assert graphs is not None
    serving = onnx.load_from_string(graphs.serving).graph
    assert {tensor.data_type for tensor in serving.initializer} == {TensorProto.FLOAT16}
    assert serving.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    check_operators(graphs.serving, opset=20)
    x = np.random.default_rng(0).standard_normal((9, 100)).astype(np.float32)
    np.testing.assert_allclose(run(graphs.serving, {"x": x}), run(graphs.reference, {"x": x}), atol=0.01)
    assert (run(graphs.reference, {"x": x}) != run(content, {"x": x})).any()


def test_a_graph_without_weights_has_no_other_precision() -> None:
    relu = model([helper.make_node("Relu", ["x"], ["y"])], {}, inputs={"x": [3]}, outputs={"y": [3]})
    assert half_graphs(relu) is None
