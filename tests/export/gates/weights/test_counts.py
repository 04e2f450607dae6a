"""A graph has no more nodes of a kind than the operators of the module become."""

from collections.abc import Callable
from dataclasses import replace

import onnx
import pytest
from onnx import TensorProto, helper

from export.candidate import Candidate
from export.errors import ExportError
from export.gates.weights.counts import check_counts
from export.gates.weights.gate import check_weights
from export.gates.weights.source import Operator, read_source
from export.gates.weights.translation import Translation
from tests.export.conftest import Candidates
from tests.export.edits import constant, node

# Adds nodes to the graph that read this tensor, and returns the name of the result.
Build = Callable[[onnx.GraphProto, str], str]


def inserted(candidate: Candidate, tensor: str, build: Build) -> Candidate:
    """The candidate with nodes between a tensor and its readers."""
    model = onnx.load_from_string(candidate.model)
    graph = model.graph
    others = list(graph.node)
    position = 1 + next((i for i, other in enumerate(others) if tensor in other.output), -1)
    result = build(graph, tensor)
    added = list(graph.node)[len(others) :]
    for other in others:
        other.input[:] = [result if name == tensor else name for name in other.input]
    ordered = [onnx.NodeProto.FromString(one.SerializeToString()) for one in added]
    rest = [onnx.NodeProto.FromString(one.SerializeToString()) for one in others]
    del graph.node[:]
    graph.node.extend([*rest[:position], *ordered, *rest[position:]])
    return replace(candidate, model=model.SerializeToString())


def two_pixels(graph: onnx.GraphProto, images: str) -> str:
    """A picture whose pixels [0, 0] and [1, 1] are 7 and 6 becomes black. No picture that is tried has these values."""
    pixels = []
    for place, value in ((0, 7), (1, 6)):
        row = node(graph, "Gather", [images, constant(graph, [place], "int64")], axis=1)
        pixel = node(graph, "Gather", [row, constant(graph, [place], "int64")], axis=2)
        number = node(graph, "Cast", [pixel], to=TensorProto.INT32)
        pixels.append(node(graph, "Equal", [number, constant(graph, value, "int32")]))
    black = node(graph, "Sub", [images, images])
    return node(graph, "Where", [node(graph, "And", pixels), black, images])


def far_maximum(graph: onnx.GraphProto, tensor: str) -> str:
    """Values above 14 are cut. The bound is no float, so it is no constant of the model."""
    bound = node(graph, "Cast", [constant(graph, 7, "int64")], to=TensorProto.FLOAT)
    return node(graph, "Min", [tensor, node(graph, "Add", [bound, bound])])


def clip_without_bounds(graph: onnx.GraphProto, tensor: str) -> str:
    return node(graph, "Clip", [tensor])


def half_precision(graph: onnx.GraphProto, tensor: str) -> str:
    return node(graph, "Cast", [node(graph, "Cast", [tensor], to=TensorProto.FLOAT16)], to=TensorProto.FLOAT)


def identity(graph: onnx.GraphProto, tensor: str) -> str:
    return node(graph, "Identity", [tensor])


def start_at_a_value(graph: onnx.GraphProto, ids: str) -> str:
    """The value of the first token says where a slice begins."""
    zero, one = constant(graph, [0], "int64"), constant(graph, [1], "int64")
    first = node(graph, "Reshape", [node(graph, "Slice", [ids, zero, one, one]), constant(graph, [-1], "int64")])
    start = node(graph, "Slice", [first, zero, one])
    return node(graph, "Slice", [ids, start, constant(graph, [7], "int64"), one])


def test_an_honest_graph_has_no_more_nodes_than_its_operators_become(candidate: Candidate) -> None:
    source = read_source(candidate.source)
    check_counts(onnx.load_from_string(candidate.model).graph, source.operators, computes_sizes=False)
    assert not source.computes_sizes


@pytest.mark.parametrize(
    ("name", "tensor", "build", "operator"),
    [
        pytest.param("tiny-picture", "images", two_pixels, "Gather", id="two pixels of certain values"),
        pytest.param("tiny-picture", "logits_source", far_maximum, "Min", id="a bound out of reach"),
        pytest.param("tiny-picture", "logits_source", clip_without_bounds, "Clip", id="a bound that is absent"),
        pytest.param("tiny-picture", "logits_source", half_precision, "Cast", id="half precision"),
    ],
)
def test_a_node_without_counterpart_is_refused(
    candidates: Candidates, name: str, tensor: str, build: Build, operator: str
) -> None:
    candidate = candidates(name)
    if tensor == "logits_source":
        graph = onnx.load_from_string(candidate.model).graph
        tensor = next(one.input[0] for one in graph.node if "logits" in one.output)
    with pytest.raises(ExportError, match=rf"weights: node \d+ \({operator}\) has no counterpart in the model"):
        check_weights(inserted(candidate, tensor, build))


def test_an_element_is_not_moved_to_where_an_input_says(candidates: Candidates) -> None:
    changed = inserted(candidates("tiny-text"), "ids", start_at_a_value)
    with pytest.raises(
        ExportError, match=r"weights: node \d+ \(Slice\) moves elements to where the values of an input"
    ):
        check_weights(changed)


def test_nodes_that_only_move_elements_are_not_counted(candidates: Candidates) -> None:
    check_weights(inserted(candidates("tiny-picture"), "images", identity))


def graph_of(*nodes: onnx.NodeProto) -> onnx.GraphProto:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2])
    graph: onnx.GraphProto = helper.make_graph(list(nodes), "graph", [value], [])
    return graph


def count(operators: list[Operator], *nodes: onnx.NodeProto, computes_sizes: bool = False) -> None:
    check_counts(graph_of(*nodes), operators, computes_sizes=computes_sizes)


RELU = Operator(name="relu", arguments={})


def test_a_recurrent_layer_is_one_node() -> None:
    nodes = [helper.make_node("LSTM", ["x"], [f"y_{i}"]) for i in range(2)]
    count([Operator(name="lstm", arguments={"num_layers": 2})], *nodes)
    with pytest.raises(ExportError, match=r"node 1 \(LSTM\) has no counterpart"):
        count([Operator(name="lstm", arguments={"num_layers": 1})], *nodes)
    with pytest.raises(ExportError, match=r"lacks nodes of layers of the model: \{'LSTM': 1\}; a layer is unrolled"):
        count([Operator(name="lstm", arguments={"num_layers": 3})], *nodes)


def test_nodes_that_no_input_reaches_are_not_counted() -> None:
    count([RELU], helper.make_node("Exp", ["weights"], ["y"]))


def test_sizes_of_an_input_are_no_values_of_it() -> None:
    count([RELU], helper.make_node("Shape", ["x"], ["size"]), helper.make_node("Reshape", ["x", "size"], ["y"]))


def test_any_operator_becomes_the_nodes_of_its_own_translation() -> None:
    translation = Translation(nodes=("CumSum", "Concat"), floats=(), integers=frozenset())
    operator = Operator(name="cumsum", arguments={}, translation=translation)
    cumsum = helper.make_node("CumSum", ["x", "axis"], ["y"])
    count([operator], cumsum)
    with pytest.raises(ExportError, match=r"node 1 \(Exp\) has no counterpart"):
        count([operator], cumsum, helper.make_node("Exp", ["y"], ["z"]))


def test_arithmetic_of_sizes_is_free_only_where_the_module_computes_sizes() -> None:
    nodes = [helper.make_node("Shape", ["x"], ["size"]), helper.make_node("Div", ["size", "two"], ["half"])]
    count([RELU], *nodes, computes_sizes=True)
    with pytest.raises(ExportError, match=r"node 1 \(Div\) has no counterpart"):
        count([RELU], *nodes)
    with pytest.raises(ExportError, match=r"node 2 \(Mul\) has no counterpart"):
        count([RELU], *nodes, helper.make_node("Mul", ["x", "half"], ["y"]), computes_sizes=True)
