"""The number of operators in the graph, compared with what the operators of the module become.

A graph that computes another answer for rare inputs alone, such as two pixels of certain values, agrees with PyTorch on
every input that is tried. It needs nodes that compare, clip, round or combine, and the module has no operator for them.
Nodes that only move elements are not counted, but where they move them to must not depend on the values of an input.
An operator that is not known by heart becomes what it becomes when it is translated by itself.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import onnx

from export.errors import ExportError
from export.gates.weights.known import KNOWN, RECURRENT
from export.gates.weights.source import Operator

# Operators that move elements, and the position of the first input that says where to.
MOVES: dict[str, int | None] = {
    **dict.fromkeys(("Concat", "Flatten", "Identity", "Shape", "Size", "Transpose"), None),
    **dict.fromkeys(("Expand", "Pad", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Unsqueeze"), 1),
    **dict.fromkeys(("ConstantOfShape", "Range"), 0),
}
SIZES = ("Shape", "Size")
# A layer that is missing was unrolled or left out.
EXACT = ("Conv", "ConvTranspose", "LSTM", "GRU", "RNN")
# Arithmetic of sizes, which is free for modules that compute sizes.
SIZE_ARITHMETIC = frozenset(
    ("Abs", "Add", "Cast", "Ceil", "Div", "Floor", "Gather", "Max", "Min", "Mod", "Mul", "Neg", "ReduceProd", "Sub")
)


def check_counts(graph: onnx.GraphProto, operators: Sequence[Operator], *, computes_sizes: bool) -> None:
    """Raises ExportError for a node that no operator of the module becomes, and for a layer without its node."""
    left = Counter(name for operator in operators for name in _nodes_of(operator))
    # Tensors that depend on an input, and those that depend on more than its sizes.
    inputs = {one.name for one in graph.input} - {one.name for one in graph.initializer}
    variable, content = set(inputs), set(inputs)
    for position, node in enumerate(graph.node):
        if not variable.intersection(node.input):
            continue
        reader = f"node {position} ({node.op_type})"
        is_content = bool(content.intersection(node.input))
        if node.op_type in MOVES:
            _check_move(node, reader, content)
        elif computes_sizes and not is_content and node.op_type in SIZE_ARITHMETIC:
            pass
        elif left[node.op_type]:
            left[node.op_type] -= 1
        elif not _is_promotion(node):
            raise ExportError("weights", f"{reader} has no counterpart in the model, whose operators need fewer")
        variable.update(node.output)
        if node.op_type not in SIZES and is_content:
            content.update(node.output)
    absent = {name: left[name] for name in EXACT if left[name]}
    if absent:
        raise ExportError(
            "weights",
            f"the graph lacks nodes of layers of the model: {absent}; a layer is unrolled, or left out",
        )


def _is_promotion(node: onnx.NodeProto) -> bool:
    """Whether a node is a cast to float32, which PyTorch does for integers in arithmetic without an operator."""
    return node.op_type == "Cast" and any(
        one.name == "to" and one.i == onnx.TensorProto.FLOAT for one in node.attribute
    )


def _nodes_of(operator: Operator) -> Iterator[str]:
    if operator.translation is not None:
        yield from operator.translation.nodes
        return
    yield from KNOWN[operator.name]
    if operator.name in RECURRENT:
        yield from [RECURRENT[operator.name]] * operator.arguments["num_layers"]


def _check_move(node: onnx.NodeProto, reader: str, content: set[str]) -> None:
    first = MOVES[node.op_type]
    bounds = [] if first is None else node.input[first:]
    if content.intersection(bounds):
        raise ExportError("weights", f"{reader} moves elements to where the values of an input say")
