"""Integer graphs compute what their reference computes, and a row has the same bits in every batch."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from export.precision.integer import integer_graphs
from service.operators import check_operators
from tests.export.precision.graphs import model, operators, product, run

ROWS = np.random.default_rng(1).standard_normal((33, 100)).astype(np.float32)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(("operator", "attributes"), [("MatMul", {}), ("Gemm", {}), ("Gemm", {"transB": 1})])
def test_a_product_equals_its_reference(bits: int, operator: str, attributes: dict[str, Any]) -> None:
    graphs = integer_graphs(product(operator, **attributes), bits)
    assert graphs is not None
    assert operators(graphs.serving)[0] == "MatMulNBits"
    check_operators(graphs.serving, opset=20)
    np.testing.assert_allclose(run(graphs.serving, {"x": ROWS}), run(graphs.reference, {"x": ROWS}), atol=0.01)
    limit = {8: 0.06, 4: 0.8}[bits]
    np.testing.assert_allclose(
        run(graphs.serving, {"x": ROWS}), run(product(operator, **attributes), {"x": ROWS}), atol=limit
    )


@pytest.mark.parametrize("bits", [8, 4])
def test_a_row_of_a_product_has_the_same_bits_beside_any_others(bits: int) -> None:
    graphs = integer_graphs(product(), bits)
    assert graphs is not None
    whole = run(graphs.serving, {"x": ROWS})
    loud = ROWS.copy()
    loud[1:] *= 1000
    assert run(graphs.serving, {"x": loud})[0].tobytes() == whole[0].tobytes()
    for batch in (2, 3, 7, 16, 32):
        assert run(graphs.serving, {"x": ROWS[:batch]}).tobytes() == whole[:batch].tobytes()


def test_dynamic_quantisation_of_a_whole_batch_would_depend_on_the_neighbours() -> None:
    """What `quantize_dynamic` puts in front of a product: the reason why this module does not use it."""
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    content = model(nodes, {}, inputs={"x": ["batch", 100]}, outputs={"y": ["batch", 100]})
    loud = ROWS.copy()
    loud[1:] *= 1000
    assert (run(content, {"x": loud})[0] != run(content, {"x": ROWS})[0]).any()


def test_an_embedding_is_read_row_by_row() -> None:
    table = np.random.default_rng(0).standard_normal((300, 16)).astype(np.float32)
    content = model(
        [helper.make_node("Gather", ["table", "ids"], ["y"])],
        {"table": table},
        inputs={"ids": ["batch", "steps"]},
        outputs={"y": ["batch", "steps", 16]},
    )
    graphs = integer_graphs(content, 4)
    assert graphs is not None
    assert operators(graphs.serving) == ["Gather", "Gather", "Cast", "Mul"]
    ids = np.arange(300).reshape(3, 100)
    assert run(graphs.serving, {"ids": ids}).tobytes() == run(graphs.reference, {"ids": ids}).tobytes()
    np.testing.assert_allclose(run(graphs.serving, {"ids": ids}), table[ids], atol=np.abs(table).max() / 127)
    assert len(graphs.serving) < len(content) / 3


@pytest.mark.parametrize("operator", ["LSTM", "GRU", "RNN"])
def test_a_recurrent_layer_stores_int8_and_computes_in_float32(operator: str) -> None:
    gates, hidden, width = {"LSTM": 4, "GRU": 3, "RNN": 1}[operator], 64, 64
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(0, 0.1, (1, gates * hidden, width)).astype(np.float32) for name in ("w", "r")}
    node = helper.make_node(operator, ["x", "w", "r"], ["", "y"], hidden_size=hidden)
    content = model([node], weights, inputs={"x": ["steps", "batch", width]}, outputs={"y": [1, "batch", hidden]})
    graphs = integer_graphs(content, 8)
    assert graphs is not None
    x = rng.standard_normal((5, 6, width)).astype(np.float32)
    assert run(graphs.serving, {"x": x}).tobytes() == run(graphs.reference, {"x": x}).tobytes()
    assert (
        run(graphs.serving, {"x": x[:, 2:3]})[:, 0].tobytes() == run(graphs.reference, {"x": x[:, 2:3]})[:, 0].tobytes()
    )
    np.testing.assert_allclose(run(graphs.serving, {"x": x}), run(content, {"x": x}), atol=0.02)
    assert len(graphs.serving) < len(content) / 3


def test_a_convolution_stores_int8() -> None:
    weights = np.random.default_rng(0).normal(0, 0.1, (32, 16, 3, 3)).astype(np.float32)
    content = model(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        {"w": weights},
        inputs={"x": ["batch", 16, 8, 8]},
        outputs={"y": ["batch", 32, 6, 6]},
    )
    graphs = integer_graphs(content, 8)
    assert graphs is not None
    assert operators(graphs.serving) == ["Cast", "Mul", "Conv"]
    x = np.random.default_rng(1).standard_normal((3, 16, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(run(graphs.serving, {"x": x}), run(graphs.reference, {"x": x}), atol=1e-5)


def test_small_weights_and_other_products_stay_as_they_are() -> None:
    assert integer_graphs(product(width=20, height=7), 8) is None
    assert integer_graphs(product("Gemm", alpha=2.0), 8) is None
    both = model(
        [helper.make_node("MatMul", ["a", "b"], ["y"])],
        {},
        inputs={"a": [64, 64], "b": [64, 64]},
        outputs={"y": [64, 64]},
    )
    assert integer_graphs(both, 8) is None


def test_weights_that_another_node_reads_as_float32_stay_there_too() -> None:
    content = onnx.load_from_string(product(width=64, height=64))
    content.graph.node.append(helper.make_node("Add", ["y", "w"], ["sum"]))
    graphs = integer_graphs(content.SerializeToString(), 8)
    assert graphs is not None
    names = {tensor.name for tensor in onnx.load_from_string(graphs.serving).graph.initializer}
    assert names == {"w", "w_int8", "w_scales"}
