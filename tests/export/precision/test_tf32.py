"""The reference of TF32 rounds the inputs of products to 10 bits, to the nearest; the served graph stays as it is."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.helper import make_node

from export.precision.tf32 import MAX_ROUNDED, round_to_tf32, tf32_graphs
from tests.export.precision.graphs import Array, model, operators, product, run

RNG = np.random.default_rng(0)
ONE, ULP = 0x3F800000, 1 << 13  # the bits of 1.0, and those of the last place that TF32 keeps


def rounded(values: Array) -> Array:
    """To the nearest number of 10 bits, by the bits of float32; a tie goes to the even one."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
    nearest = (bits + (ULP // 2 - 1) + ((bits >> 13) & 1)) // ULP * ULP
    return nearest.astype(np.uint32).view(np.float32)


def normal(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def from_bits(*bits: int) -> Array:
    return np.array(bits, np.uint32).view(np.float32)


def test_a_tie_goes_to_the_even_number() -> None:
    half = ULP // 2
    values = from_bits(ONE + half, ONE + ULP + half, ONE + half - 1, ONE + half + 1, ONE + ULP)
    expected = from_bits(ONE, ONE + 2 * ULP, ONE, ONE + ULP, ONE + ULP)
    np.testing.assert_array_equal(round_to_tf32(values), expected)
    np.testing.assert_array_equal(round_to_tf32(-values), -expected)
    np.testing.assert_array_equal(rounded(values), expected)


def test_normal_numbers_of_all_magnitudes_are_rounded_to_the_nearest() -> None:
    values = RNG.integers(0, 1 << 32, 1 << 18, dtype=np.uint32).view(np.float32)
    values = values[(np.abs(values) < MAX_ROUNDED) & (np.abs(values) >= np.finfo(np.float32).tiny)]
    assert len(values) > 200_000
    np.testing.assert_array_equal(round_to_tf32(values), rounded(values))


def test_what_would_overflow_stays_as_it_is() -> None:
    values = np.array([np.inf, -np.inf, np.nan, 3e38, -MAX_ROUNDED, 0.0], np.float32)
    np.testing.assert_array_equal(round_to_tf32(values), values)
    node = make_node("MatMul", ["x", "w"], ["y"])
    content = model([node], {"w": np.eye(6, dtype=np.float32)}, inputs={"x": [6, 6]}, outputs={"y": [6, 6]})
    graphs = tf32_graphs(content)
    assert graphs is not None
    np.testing.assert_array_equal(run(graphs.reference, {"x": np.diag(values)}), run(content, {"x": np.diag(values)}))


def test_a_product_whose_rounding_matters() -> None:
    """1 + 2^-11 is rounded to 1, so that the difference of two products is lost."""
    node = make_node("MatMul", ["x", "w"], ["y"])
    content = model([node], {"w": np.array([[1], [-1]], np.float32)}, inputs={"x": [1, 2]}, outputs={"y": [1, 1]})
    graphs = tf32_graphs(content)
    assert graphs is not None
    assert graphs.serving == content
    x = np.array([[1 + 2**-11, 1]], np.float32)
    assert run(graphs.serving, {"x": x}) == 2**-11
    assert run(graphs.reference, {"x": x}) == 0


LAYERS: Mapping[str, tuple[tuple[int, ...], dict[str, tuple[int, ...]], dict[str, Any]]] = {
    "MatMul": ((5, 20), {"w": (20, 7)}, {}),
    "Gemm": ((5, 20), {"w": (7, 20)}, {"transB": 1}),
    "Conv": ((2, 3, 9, 9), {"w": (4, 3, 3, 3)}, {"strides": [2, 2]}),
    "ConvTranspose": ((2, 3, 5, 5), {"w": (3, 4, 3, 3)}, {}),
    "DeformConv": ((2, 3, 5, 5), {"w": (4, 3, 1, 1), "offset": (2, 2, 5, 5)}, {}),
    "Einsum": ((5, 20), {"w": (7, 20)}, {"equation": "ik,jk->ij"}),
    "LSTM": ((1, 2, 6), {"w": (1, 16, 6), "r": (1, 16, 4)}, {"hidden_size": 4}),
    "GRU": ((1, 2, 6), {"w": (1, 12, 6), "r": (1, 12, 4)}, {"hidden_size": 4}),
    "RNN": ((1, 2, 6), {"w": (1, 4, 6), "r": (1, 4, 4)}, {"hidden_size": 4}),
}


@pytest.mark.parametrize("operator", LAYERS)
def test_inputs_and_weights_of_every_product_are_rounded(operator: str) -> None:
    shape, weights, attributes = LAYERS[operator]
    is_recurrent = "hidden_size" in attributes
    values = {name: np.zeros(size, np.float32) if name == "offset" else normal(*size) for name, size in weights.items()}
    inputs, arrays = {"x": shape}, {"x": normal(*shape)}
    names = ["x", *values]
    if is_recurrent:
        inputs["state"], arrays["state"] = (1, 2, 4), normal(1, 2, 4)
        names += ["", "", "state"]
    node = make_node(operator, names, ["", "y"] if is_recurrent else ["y"], **attributes)
    outputs = {"y": [None] * (3 if is_recurrent else len(shape))}

    def build(weights: Mapping[str, Array]) -> bytes:
        return model([node], weights, inputs=inputs, outputs=outputs)  # type: ignore[arg-type]

    graphs = tf32_graphs(build(values))
    assert graphs is not None
    assert graphs.serving == build(values)
    # Of a GRU the state is added as well.
    fed = {name: array if (operator, name) == ("GRU", "state") else rounded(array) for name, array in arrays.items()}
    expected = run(build({name: rounded(value) for name, value in values.items()}), fed)
    np.testing.assert_allclose(run(graphs.reference, arrays), expected, rtol=1e-6, atol=1e-6)
    assert np.abs(run(graphs.serving, arrays) - expected).max() > 1e-5


def test_the_bias_is_added_in_float32() -> None:
    content = product("Gemm")
    graphs = tf32_graphs(content)
    assert graphs is not None
    bias = next(tensor for tensor in onnx.load_from_string(content).graph.initializer if tensor.name == "b")
    actual = run(graphs.reference, {"x": np.zeros((1, 100), np.float32)})
    np.testing.assert_array_equal(actual[0], numpy_helper.to_array(bias))


def test_an_input_of_several_products_is_rounded_once() -> None:
    weights = {"v": normal(4, 3), "w": normal(4, 3)}
    nodes = [make_node("MatMul", ["x", name], [f"x{name}"]) for name in weights]
    nodes.append(make_node("Add", ["xv", "xw"], ["y"]))
    graphs = tf32_graphs(model(nodes, weights, inputs={"x": [2, 4]}, outputs={"y": [2, 3]}))
    assert graphs is not None
    assert operators(graphs.reference).count("Where") == 1


def test_products_of_branches_are_rounded() -> None:
    float_11 = helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 1])
    branch = helper.make_graph([make_node("MatMul", ["x", "w"], ["z"])], "branch", [], [float_11])
    other = helper.make_graph(
        [make_node("MatMul", ["w", "x"], ["z2"])],
        "other",
        [],
        [helper.make_tensor_value_info("z2", TensorProto.FLOAT, [1, 1])],
    )
    nodes = [
        make_node("Greater", ["first", "zero"], ["condition"]),
        make_node("If", ["condition"], ["y"], then_branch=branch, else_branch=other),
    ]
    nodes.insert(0, make_node("Squeeze", ["x"], ["first"]))
    weights = {"w": np.ones((1, 1), np.float32), "zero": np.zeros((), np.float32)}
    graphs = tf32_graphs(model(nodes, weights, inputs={"x": [1, 1]}, outputs={"y": [1, 1]}))
    assert graphs is not None
    for sign in (1, -1):
        x = np.full((1, 1), sign * (1 + 2**-11), np.float32)
        assert (run(graphs.serving, {"x": x}), run(graphs.reference, {"x": x})) == (x, sign)


def test_a_graph_without_products_of_floats_has_no_variant() -> None:
    relu = model([make_node("Relu", ["x"], ["y"])], {}, inputs={"x": [3]}, outputs={"y": [3]})
    assert tf32_graphs(relu) is None
    nodes = [make_node("MatMul", ["ids", "ids"], ["square"]), make_node("Cast", ["square"], ["y"], to=1)]
    assert tf32_graphs(model(nodes, {}, inputs={"ids": [2, 2]}, outputs={"y": [2, 2]})) is None
