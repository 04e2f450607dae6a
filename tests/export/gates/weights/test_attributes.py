"""Attributes of the graph are those of the module's operators."""

from typing import Any

import onnx
import pytest
from onnx import helper

from export.errors import ExportError
from export.gates.weights.attributes import RULES, check_attributes
from export.gates.weights.source import Operator, read_source
from tests.export.conftest import Candidates

CONVOLUTION = {"stride": [2, 2], "padding": [1, 0], "dilation": [1, 1], "groups": 4}
POOL = {"kernel_size": [2, 3], "stride": [], "padding": [0, 1], "ceil_mode": True}
RECURRENT = {"num_layers": 1, "bidirectional": False}
# The operator of ONNX, the module's operator with its arguments, attributes that agree, attributes that do not.
CASES: list[tuple[str, str, dict[str, Any], dict[str, Any], list[dict[str, Any]]]] = [
    (
        "Conv",
        "conv2d",
        CONVOLUTION,
        {"strides": [2, 2], "pads": [1, 0, 1, 0], "group": 4},
        [
            {"strides": [2, 1]},
            {"strides": None},
            {"pads": [0, 1, 0, 1]},
            {"dilations": [2, 1]},
            {"group": 1},
            {"auto_pad": "SAME_UPPER"},
        ],
    ),
    (
        "Conv",
        "conv1d",
        CONVOLUTION | {"padding": "same"},
        {"strides": [2, 2], "pads": [5, 5], "group": 4},
        [{"group": 2}],
    ),
    (
        "ConvTranspose",
        "conv_transpose2d",
        CONVOLUTION | {"output_padding": [1, 0]},
        {"strides": [2, 2], "pads": [1, 0, 1, 0], "group": 4, "output_padding": [1, 0]},
        [{"output_padding": None}, {"output_padding": [0, 0]}],
    ),
    (
        "MaxPool",
        "max_pool2d",
        POOL | {"dilation": [1, 2]},
        {"kernel_shape": [2, 3], "strides": [2, 3], "pads": [0, 1, 0, 1], "dilations": [1, 2], "ceil_mode": 1},
        [{"kernel_shape": [3, 3]}, {"strides": None}, {"dilations": None}, {"ceil_mode": 0}],
    ),
    (
        "AveragePool",
        "avg_pool2d",
        POOL | {"stride": [1, 1], "count_include_pad": True},
        {"kernel_shape": [2, 3], "strides": [1, 1], "pads": [0, 1, 0, 1], "ceil_mode": 1, "count_include_pad": 1},
        [{"count_include_pad": None}, {"strides": [2, 1]}],
    ),
    (
        "LSTM",
        "lstm",
        RECURRENT,
        {},
        [{"direction": "reverse"}, {"layout": 1}, {"input_forget": 1}, {"activations": ["Tanh"]}],
    ),
    (
        "RNN",
        "rnn_tanh",
        RECURRENT | {"bidirectional": True},
        {"direction": "bidirectional"},
        [{"direction": "forward"}],
    ),
    ("GRU", "gru", RECURRENT, {"linear_before_reset": 1}, [{"linear_before_reset": None}]),
    ("LayerNormalization", "layer_norm", {"normalized_shape": [3, 4]}, {"axis": -2}, [{"axis": -1}, {"axis": None}]),
    ("Softmax", "softmax", {"dim": 1}, {"axis": 1}, [{"axis": 0}, {"axis": None}]),
    ("Gelu", "gelu", {"approximate": "tanh"}, {"approximate": "tanh"}, [{"approximate": None}]),
]


def graph(name: str, attributes: dict[str, Any]) -> onnx.GraphProto:
    present = {key: value for key, value in attributes.items() if value is not None}
    return helper.make_graph([helper.make_node(name, ["x"], ["y"], **present)], "graph", [], [])


@pytest.mark.parametrize(("name", "operator", "arguments", "right", "others"), CASES)
def test_an_attribute_agrees_with_the_module_or_is_refused(
    name: str, operator: str, arguments: dict[str, Any], right: dict[str, Any], others: list[dict[str, Any]]
) -> None:
    used = [Operator(name=operator, arguments=arguments)]
    check_attributes(graph(name, right), used)
    for changed in others:
        [key] = changed
        with pytest.raises(ExportError, match=rf"weights: attribute '{key}' of node 0 \({name}\) is .*, the model has"):
            check_attributes(graph(name, right | changed), used)


def test_every_rule_has_a_case() -> None:
    assert set(RULES) == {name for name, *_ in CASES}


def test_an_operator_that_the_exporter_wrote_otherwise_is_not_compared() -> None:
    check_attributes(graph("Softmax", {"axis": 0}), [])


def test_the_layers_of_a_recurrent_module_are_compared_one_by_one(candidates: Candidates) -> None:
    candidate = candidates("tiny-lstm")
    proto = onnx.load_from_string(candidate.model).graph
    operators = read_source(candidate.source).operators
    check_attributes(proto, operators)
    last = [node for node in proto.node if node.op_type == "LSTM"][-1]
    last.attribute.append(helper.make_attribute("direction", "reverse"))
    with pytest.raises(ExportError, match=r"'direction' of node .* is reverse, the model has forward"):
        check_attributes(proto, operators)
