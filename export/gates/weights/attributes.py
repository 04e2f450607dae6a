"""Attributes of the graph's operators that hold whole numbers or words, compared with the arguments in the module.

Attributes that hold a float are constants, which `gate` accounts for. Operators are compared in order if the graph has
as many of them as the module: an exporter may write a global pool, say, as another operator.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import onnx
from onnx.helper import get_attribute_value
from torch import fx

from export.errors import ExportError
from export.gates.weights.source import Operator
from export.gates.weights.trace import arguments_of, operator_name

# A tuple holds all values that an attribute may have.
Attributes = dict[str, Any]
PADDINGS = {"pad", "constant_pad_nd"}

# The values of absent attributes; for a list, the value of each element.
DEFAULTS: Attributes = {
    "strides": 1,
    "dilations": 1,
    "pads": 0,
    "output_padding": 0,
    "group": 1,
    "auto_pad": "NOTSET",
    "ceil_mode": 0,
    "count_include_pad": 0,
    "direction": "forward",
    "layout": 0,
    "input_forget": 0,
    "linear_before_reset": 0,
    "axis": -1,
    "approximate": "none",
}


def check_attributes(graph: onnx.GraphProto, operators: Sequence[Operator]) -> None:
    """Raises ExportError if an operator of the graph has another attribute than the module's operator."""
    for name, (prefix, attributes_of) in RULES.items():
        nodes = [(position, node) for position, node in enumerate(graph.node) if node.op_type == name]
        expected = [
            one for operator in operators if operator.name.startswith(prefix) for one in attributes_of(operator)
        ]
        if len(nodes) == len(expected):
            for (position, node), attributes in zip(nodes, expected, strict=True):
                _compare(f"node {position} ({name})", node, attributes)


def _compare(reader: str, node: onnx.NodeProto, expected: Attributes) -> None:
    present = {one.name: _text(get_attribute_value(one)) for one in node.attribute}
    for key, value in expected.items():
        default, allowed = DEFAULTS.get(key), value if isinstance(value, tuple) else (value,)
        actual = present.get(key, [default] * len(allowed[0]) if isinstance(allowed[0], list) else default)
        if actual not in allowed:
            raise ExportError("weights", f"attribute {key!r} of {reader} is {actual}, the model has {allowed[-1]}")


def _text(value: Any) -> Any:
    if isinstance(value, list):
        return [_text(one) for one in value]
    return value.decode() if isinstance(value, bytes) else value


def _convolution(operator: Operator) -> Iterator[Attributes]:
    one = operator.arguments
    sizes = {"strides": list(one["stride"]), "dilations": list(one["dilation"]), "group": one["groups"]}
    if "output_padding" in one:
        sizes["output_padding"] = list(one["output_padding"])
    # A padding that is a word, such as "same", depends on the kernel.
    if not isinstance(one["padding"], str):
        padding = _pads(one["padding"])
        before = _zeros_before(one.get("input"), len(one["padding"]))
        # The exporter may make zeros around the input those of the convolution.
        both = [first + second for first, second in zip(padding["pads"], before, strict=True)]
        sizes |= {**padding, "pads": (padding["pads"], both)}
    yield sizes


def _zeros_before(operand: Any, num_axes: int) -> list[int]:
    """The zeros that an operator puts around the last axes of what a convolution reads, as `pads` of ONNX."""
    arguments = arguments_of(operand) if isinstance(operand, fx.Node) and operator_name(operand) in PADDINGS else {}
    pairs, is_zero = arguments.get("pad", []), arguments.get("value") in {None, 0}
    if arguments.get("mode", "constant") != "constant" or not is_zero or not all(type(pad) is int for pad in pairs):
        return [0] * 2 * num_axes
    # PyTorch lists a beginning and an end for each axis, the last axis first.
    pairs = [*pairs, *[0] * 2 * num_axes][: 2 * num_axes]
    return [*pairs[::2][::-1], *pairs[1::2][::-1]]


def _pool(operator: Operator) -> Iterator[Attributes]:
    one = operator.arguments
    sizes = {
        "kernel_shape": list(one["kernel_size"]),
        "strides": list(one["stride"] or one["kernel_size"]),
        "ceil_mode": int(one["ceil_mode"]),
        **_pads(one["padding"]),
    }
    if "dilation" in one:
        sizes["dilations"] = list(one["dilation"])
    if "count_include_pad" in one:
        sizes["count_include_pad"] = int(one["count_include_pad"])
    yield sizes


def _recurrent(operator: Operator) -> Iterator[Attributes]:
    direction = "bidirectional" if operator.arguments["bidirectional"] else "forward"
    for _ in range(operator.arguments["num_layers"]):
        yield {"direction": direction, "layout": 0, "input_forget": 0, "activations": None}


def _rnn(operator: Operator) -> Iterator[Attributes]:
    directions = 2 if operator.arguments["bidirectional"] else 1
    activations = ["Relu"] * directions if operator.name == "rnn_relu" else None
    for attributes in _recurrent(operator):
        yield {**attributes, "activations": activations}


def _gru(operator: Operator) -> Iterator[Attributes]:
    for attributes in _recurrent(operator):
        # PyTorch applies the reset gate after the matrix product.
        yield {**attributes, "linear_before_reset": 1}


def _layer_norm(operator: Operator) -> Iterator[Attributes]:
    yield {"axis": -len(operator.arguments["normalized_shape"])}


def _softmax(operator: Operator) -> Iterator[Attributes]:
    yield {"axis": operator.arguments["dim"]}


def _gelu(operator: Operator) -> Iterator[Attributes]:
    yield {"approximate": operator.arguments["approximate"]}


def _pads(padding: Sequence[int]) -> Attributes:
    """PyTorch pads both ends of an axis alike; ONNX lists all beginnings, then all ends."""
    return {"pads": [*padding, *padding], "auto_pad": "NOTSET"}


# The operator of ONNX, how the names of PyTorch's operators begin, and the attributes that follow from their arguments.
RULES: dict[str, tuple[tuple[str, ...], Callable[[Operator], Iterator[Attributes]]]] = {
    "Conv": (("conv1d", "conv2d", "conv3d"), _convolution),
    "ConvTranspose": (("conv_transpose",), _convolution),
    "MaxPool": (("max_pool",), _pool),
    "AveragePool": (("avg_pool",), _pool),
    "LSTM": (("lstm",), _recurrent),
    "GRU": (("gru",), _gru),
    "RNN": (("rnn_",), _rnn),
    "LayerNormalization": (("layer_norm",), _layer_norm),
    "Softmax": (("softmax",), _softmax),
    "Gelu": (("gelu",), _gelu),
}
