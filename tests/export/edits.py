"""Edits of a candidate's graph: a value that is added to its logits when a condition on its inputs holds."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
from onnx import helper, numpy_helper

from export.candidate import Candidate

# Adds nodes to the graph, and returns the name of the value to add to an output, whose name it is given.
Leak = Callable[[onnx.GraphProto, str], str]
# Adds nodes to the graph, and returns the name of a boolean.
Condition = Callable[[onnx.GraphProto], str]


def node(graph: onnx.GraphProto, operator: str, inputs: list[str], **attributes: object) -> str:
    """Append a node and return the name of its output."""
    name = f"leak_{len(graph.node)}"
    graph.node.append(helper.make_node(operator, inputs, [name], **attributes))
    return name


def constant(graph: onnx.GraphProto, value: object, dtype: str) -> str:
    """Append an initializer and return its name."""
    name = f"constant_{len(graph.initializer)}"
    graph.initializer.append(numpy_helper.from_array(np.array(value, dtype), name))
    return name


def size(graph: onnx.GraphProto, tensor: str, axis: int) -> str:
    """The size of one axis of a tensor."""
    return node(graph, "Gather", [node(graph, "Shape", [tensor]), constant(graph, axis, "int64")])


def leaking(candidate: Candidate, leak: Leak, scale: float, output: str = "logits") -> Candidate:
    """The candidate with `scale` times the leak added to one of its outputs."""
    model = onnx.load_from_string(candidate.model)
    graph = model.graph
    for other in graph.node:
        for names in (other.input, other.output):
            for i, name in enumerate(names):
                names[i] = "exact" if name == output else name
    added = node(graph, "Mul", [leak(graph, "exact"), constant(graph, scale, "float32")])
    graph.node.append(helper.make_node("Add", ["exact", added], [output]))
    return replace(candidate, model=model.SerializeToString())


def triggered(candidate: Candidate, condition: Condition, scale: float = 0.5, output: str = "logits") -> Candidate:
    """The candidate with `scale` added to an output of all rows if the condition holds."""
    return leaking(
        candidate, lambda graph, _: node(graph, "Cast", [condition(graph)], to=onnx.TensorProto.FLOAT), scale, output
    )


def size_is(tensor: str, axis: int, value: int) -> Condition:
    """An axis of an input has this size."""
    return lambda graph: node(graph, "Equal", [size(graph, tensor, axis), constant(graph, value, "int64")])


def row_has(tensor: str, operator: str, value: float, dtype: str, num_axes: int = 2) -> Condition:
    """Some element of a row compares like this with a value; only that row of an output of `num_axes` changes."""

    def condition(graph: onnx.GraphProto) -> str:
        holds = node(graph, operator, [tensor, constant(graph, value, dtype)])
        number = node(graph, "Cast", [node(graph, "Flatten", [holds])], to=onnx.TensorProto.FLOAT)
        return is_positive(graph, node(graph, "ReduceMax", [number, constant(graph, [1], "int64")]), num_axes)

    return condition


def is_positive(graph: onnx.GraphProto, number: str, num_axes: int = 2) -> str:
    """Whether the number of each row, [batch, 1], is positive, as a boolean of so many axes."""
    positive = node(graph, "Greater", [number, constant(graph, 0.5, "float32")])
    return node(graph, "Reshape", [positive, constant(graph, [-1] + [1] * (num_axes - 1), "int64")])


def any_element(tensor: str, operator: str, value: float, dtype: str) -> Condition:
    """Some element of an input compares like this with a value."""

    def condition(graph: onnx.GraphProto) -> str:
        holds = node(graph, operator, [tensor, constant(graph, value, dtype)])
        number = node(graph, "Cast", [holds], to=onnx.TensorProto.FLOAT)
        largest = node(graph, "ReduceMax", [number], keepdims=0)
        return node(graph, "Greater", [largest, constant(graph, 0.5, "float32")])

    return condition
