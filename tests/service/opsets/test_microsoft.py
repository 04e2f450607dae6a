"""MatMulNBits is admitted with weights and scales of exactly the declared sizes; nothing else of its domain is."""

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from service.operators import check_operators

OPSET = 20
SIZES = {"K": 40, "N": 6, "bits": 8, "block_size": 32}


def model_of(
    *,
    operator: str = "MatMulNBits",
    inputs: tuple[str, ...] = ("x", "w", "s"),
    weights: tuple[int, ...] = (6, 2, 32),
    scales: tuple[int, ...] = (6, 2),
    version: int = 1,
    **attributes: Any,
) -> bytes:
    node = helper.make_node(operator, inputs, ["y"], domain="com.microsoft", **(SIZES | attributes))
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 40])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 6])],
        [
            numpy_helper.from_array(np.full(weights, 128, np.uint8), "w"),
            numpy_helper.from_array(np.ones(scales, np.float32), "s"),
        ],
    )
    imports = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", version)]
    return helper.make_model(graph, ir_version=10, opset_imports=imports).SerializeToString()


def test_a_product_with_weights_of_few_bits_is_admitted_and_loaded() -> None:
    for content in (model_of(accuracy_level=4), model_of(bits=4, weights=(6, 2, 16))):
        check_operators(content, opset=OPSET)
        ort.InferenceSession(content, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "com.microsoft opset 2, expected one of 1 to 1"),
        ({"bits": 2}, "'bits' is 2, expected one of 4, 8"),
        ({"block_size": 24}, "'block_size' is 24, expected one of 16, 32"),
        ({"K": 0}, "'K' is 0, expected one of 1 to 1048576"),
        ({"N": -1}, "'N' is -1, expected one of 1 to 1048576"),
        ({"N": 7}, r"the weights are uint8 \[6, 2, 32\], expected uint8 \[7, 2, 32\]"),
        ({"K": 90}, r"the weights are uint8 \[6, 2, 32\], expected uint8 \[6, 3, 32\]"),
        ({"bits": 4}, r"the weights are uint8 \[6, 2, 32\], expected uint8 \[6, 2, 16\]"),
        ({"scales": (6, 1)}, r"the scales are float32 \[6, 1\], expected float32 \[6, 2\]"),
        ({"accuracy_level": 9}, "'accuracy_level' is 9, expected one of 0, 1, 4"),
        ({"weight_prepacked": 1}, "has the attribute 'weight_prepacked'"),
        ({"inputs": ("x", "w", "s", "w")}, "has 4 inputs, expected input, weights, scales"),
        ({"inputs": ("x", "w")}, "has 2 inputs"),
        ({"inputs": ("x", "x", "s")}, "the weights 'x' are no initializer"),
        ({"inputs": ("x", "w", "w")}, r"the scales are uint8"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_another_size_or_attribute_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_operators(model_of(**changes), opset=OPSET)


@pytest.mark.parametrize("operator", ["Gelu", "GroupQueryAttention", "MatMulNBitsMlp"])
def test_another_operator_of_the_domain_is_refused(operator: str) -> None:
    with pytest.raises(ValueError, match=r"operator domain 'com\.microsoft', of which only MatMulNBits is admitted"):
        check_operators(model_of(operator=operator), opset=OPSET)


def test_a_subgraph_is_refused() -> None:
    content = onnx.load_from_string(model_of())
    content.graph.node[0].attribute.append(helper.make_attribute("body", helper.make_graph([], "inner", [], [])))
    with pytest.raises(ValueError, match="has the attribute 'body'"):
        check_operators(content.SerializeToString(), opset=OPSET)
