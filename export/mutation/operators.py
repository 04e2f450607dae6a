"""Mutants of the nodes of a graph: attributes, masks, operators, and the order and choice of their inputs.

The list is complete for a graph: each node contributes every edit that its operator admits.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import onnx
from onnx import helper

from export.mutation.mutant import Mutant, graph_mutant
from export.mutation.trees import ENSEMBLES, tree_edits

Edit = Callable[[onnx.NodeProto], None]

# Each operator with those that an export may confuse it with.
CONFUSED: Mapping[str, tuple[str, ...]] = {
    "Less": ("LessOrEqual", "Greater"),
    "LessOrEqual": ("Less", "GreaterOrEqual"),
    "GreaterOrEqual": ("Greater", "Less"),
    "Equal": ("GreaterOrEqual",),
    "Relu": ("LeakyRelu", "Elu", "Identity"),
    "Gelu": ("Relu", "Identity"),
    "Tanh": ("Sigmoid", "HardSigmoid"),
    "Round": ("Floor", "Ceil"),
    "MaxPool": ("AveragePool",),
    "Softmax": ("LogSoftmax",),
    "Add": ("Sub",),
    "Sub": ("Add",),
    "Mul": ("Add",),
    "Div": ("Mul",),
    "ReduceMax": ("ReduceMin", "ReduceSum"),
}
# The attributes that an operator has in common with its substitutes.
SHARED_ATTRIBUTES = {"MaxPool": frozenset({"kernel_shape", "strides", "pads"}), "Softmax": frozenset({"axis"})}
ORDERED = frozenset({"Sub", "Div", "Less", "LessOrEqual", "GreaterOrEqual", "MatMul", "Concat"})
SEQUENCE_LENGTHS, INITIAL_H, INITIAL_C = 4, 5, 6


def operator_mutants(model: bytes) -> list[Mutant]:
    """Every edit of every node."""
    graph = onnx.load_from_string(model).graph
    mutants: list[Mutant] = []
    for index, node in enumerate(graph.node):
        for kind, place, edit in (*_edits(node), *_rewired(graph, node)):
            location = f"{node.op_type} {node.name or index}, {place}"
            mutants.append(graph_mutant(kind, location, partial(_apply, index=index, edit=edit)))
    return mutants


def _apply(content: bytes, *, index: int, edit: Edit) -> bytes:
    model = onnx.load_from_string(content)
    edit(model.graph.node[index])
    edited: bytes = model.SerializeToString(deterministic=True)
    return edited


def _edits(node: onnx.NodeProto) -> Iterator[tuple[str, str, Edit]]:
    for operator in CONFUSED.get(node.op_type, ()):
        yield "operator", f"as {operator}", partial(_rename, operator=operator)
    if node.op_type in ORDERED and len(node.input) > 1:
        yield "inputs swapped", "first two", partial(_swap, first=0, second=1)
    match node.op_type:
        case "Where":
            yield "mask dropped", "first branch", partial(_bypass, source=1)
            yield "mask dropped", "second branch", partial(_bypass, source=2)
        case "Add" | "Concat" if len(node.input) > 1:
            yield "input dropped", "first input alone", partial(_bypass, source=0)
            yield "input dropped", "second input alone", partial(_bypass, source=1)
        case "Not" | "Clip" | "Relu" | "LayerNormalization":
            yield "node bypassed", "as its input", partial(_bypass, source=0)
        case "LSTM" | "RNN":
            yield from _recurrent_edits(node)
        case "Conv" | "MaxPool":
            yield from _window_edits(node)
        case "LayerNormalization":
            yield "attribute", "epsilon 1e-3", partial(_set, name="epsilon", value=1e-3)
        case "Softmax":
            yield "attribute", "axis 0", partial(_set, name="axis", value=0)
        case "Gemm":
            yield "attribute", "alpha 1.01", partial(_set, name="alpha", value=1.01)
            yield "attribute", "beta 0", partial(_set, name="beta", value=0.0)
        case operator if operator in ENSEMBLES:
            yield from tree_edits(node)
        case "Gelu":
            yield "attribute", "the approximation by tanh", partial(_set, name="approximate", value="tanh")


def _recurrent_edits(node: onnx.NodeProto) -> Iterator[tuple[str, str, Edit]]:
    if any(node.input[SEQUENCE_LENGTHS:INITIAL_H]):
        yield "lengths ignored", "no sequence_lens", partial(_drop, position=SEQUENCE_LENGTHS)
    yield "attribute", "direction reverse", partial(_set, name="direction", value="reverse")
    yield "attribute", "clip 0.5", partial(_set, name="clip", value=0.5)
    if len(node.input) > INITIAL_C:
        yield "inputs swapped", "initial states", partial(_swap, first=INITIAL_H, second=INITIAL_C)
    for position in (place for place in range(INITIAL_H, len(node.input)) if node.input[place]):
        yield "input dropped", f"input {position}", partial(_drop, position=position)
    if len(node.output) > 2:
        yield "outputs swapped", "last two", partial(_swap_outputs, first=1, second=2)


def _window_edits(node: onnx.NodeProto) -> Iterator[tuple[str, str, Edit]]:
    """Shifted and changed windows. The shifted ones give the same shape as before."""
    attributes = {attribute.name: list(attribute.ints) for attribute in node.attribute}
    num_axes = max(len(attributes.get("kernel_shape", ())), len(attributes.get("pads", ())) // 2) or 2
    pads = attributes.get("pads") or [0] * 2 * num_axes
    if any(pads):
        for axis, shift in ((0, 1), (num_axes - 1, -1)):
            shifted = list(pads)
            shifted[axis] += shift
            shifted[num_axes + axis] -= shift
            yield "attribute", "pads shifted", partial(_set, name="pads", value=shifted)
    yield "attribute", "strides", partial(_set, name="strides", value=[1] * (num_axes - 1) + [2])
    yield "attribute", "dilations 2", partial(_set, name="dilations", value=[2] * num_axes)


def _rewired(graph: onnx.GraphProto, node: onnx.NodeProto) -> Iterator[tuple[str, str, Edit]]:
    """The node with the tensor of another layer that has the same shape."""
    shapes = {tensor.name: (tensor.data_type, tuple(tensor.dims)) for tensor in graph.initializer}
    for position, name in enumerate(node.input):
        if len(shapes.get(name, (0, ()))[1]) < 1:
            continue
        others = [other for other, shape in shapes.items() if shape == shapes[name] and other != name]
        for other in others[:1]:
            yield "tensors confused", f"{other} for {name}", partial(_replace, position=position, name=other)


def _rename(node: onnx.NodeProto, *, operator: str) -> None:
    shared = SHARED_ATTRIBUTES.get(node.op_type, frozenset())
    _set_attributes(node, [attribute for attribute in node.attribute if attribute.name in shared])
    node.op_type = operator


def _bypass(node: onnx.NodeProto, *, source: int) -> None:
    name = node.input[source]
    del node.input[:], node.attribute[:], node.output[1:]
    node.input.append(name)
    node.op_type = "Identity"


def _swap(node: onnx.NodeProto, *, first: int, second: int) -> None:
    node.input[first], node.input[second] = node.input[second], node.input[first]


def _swap_outputs(node: onnx.NodeProto, *, first: int, second: int) -> None:
    node.output[first], node.output[second] = node.output[second], node.output[first]


def _drop(node: onnx.NodeProto, *, position: int) -> None:
    node.input[position] = ""


def _replace(node: onnx.NodeProto, *, position: int, name: str) -> None:
    node.input[position] = name


def _set(node: onnx.NodeProto, *, name: str, value: float | str | list[int]) -> None:
    others = [attribute for attribute in node.attribute if attribute.name != name]
    _set_attributes(node, [*others, helper.make_attribute(name, value)])


def _set_attributes(node: onnx.NodeProto, attributes: list[onnx.AttributeProto]) -> None:
    # Deleting the attributes of the node invalidates the objects.
    copies = [onnx.AttributeProto.FromString(attribute.SerializeToString()) for attribute in attributes]
    del node.attribute[:]
    node.attribute.extend(copies)
