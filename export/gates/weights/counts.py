"""The number of operators in the graph, compared with what the operators of the module become.

A graph that computes another answer for rare inputs alone, such as two pixels of certain values, agrees with PyTorch on
every input that is tried. It needs nodes that compare, clip, round or combine, and the module has no operator for them.
Nodes that only move elements are not counted, but where they move them to must not depend on the values of an input.
The check covers modules whose operators are all among ALLOWED.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import onnx

from export.errors import ExportError
from export.gates.weights.source import Operator

# Operators that move elements, and the position of the first input that says where to.
MOVES: dict[str, int | None] = {
    **dict.fromkeys(("Concat", "Flatten", "Identity", "Shape", "Size", "Transpose"), None),
    **dict.fromkeys(("Expand", "Pad", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Unsqueeze"), 1),
    **dict.fromkeys(("ConstantOfShape", "Range"), 0),
}
SIZES = ("Shape", "Size")
RECURRENT = {"lstm": "LSTM", "gru": "GRU", "rnn_tanh": "RNN"}
# What an operator of the module may become, with its name in ONNX; one node of each.
ALLOWED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("flatten", "unflatten", "reshape", "view", "permute", "transpose", "unsqueeze", "squeeze"), ()),
    **dict.fromkeys(("slice", "cat", "stack", "chunk", "split", "split_with_sizes", "expand", "contiguous"), ()),
    **dict.fromkeys(("arange", "zeros", "ones", "full", "sym_size", "dropout", "clone", "detach", "alias"), ()),
    **dict.fromkeys(("embedding", "select", "index_select"), ("Gather",)),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), ("Conv",)),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), ("ConvTranspose",)),
    **dict.fromkeys(("max_pool1d", "max_pool2d", "max_pool3d"), ("MaxPool",)),
    **dict.fromkeys(("avg_pool1d", "avg_pool2d", "avg_pool3d"), ("AveragePool",)),
    **dict.fromkeys(("matmul", "mm", "bmm"), ("MatMul",)),
    **dict.fromkeys(("addmm", "linear"), ("Gemm", "MatMul", "Add")),
    **dict.fromkeys(("bitwise_not", "logical_not"), ("Not",)),
    **dict.fromkeys(("masked_fill", "where"), ("Where",)),
    **dict.fromkeys(("lstm", "gru", "rnn_tanh"), ("Cast",)),
    "to": ("Cast",),
    "add": ("Add",),
    "sub": ("Sub",),
    "mul": ("Mul",),
    "div": ("Div",),
    "neg": ("Neg",),
    "sum": ("ReduceSum",),
    "mean": ("ReduceMean",),
    "amax": ("ReduceMax",),
    "amin": ("ReduceMin",),
    "eq": ("Equal",),
    "lt": ("Less",),
    "le": ("LessOrEqual",),
    "gt": ("Greater",),
    "ge": ("GreaterOrEqual",),
    "round": ("Round",),
    "clamp": ("Clip",),
    "relu": ("Relu",),
    "gelu": ("Gelu",),
    "tanh": ("Tanh",),
    "sigmoid": ("Sigmoid",),
    "softmax": ("Softmax",),
    "layer_norm": ("LayerNormalization",),
    "batch_norm": ("BatchNormalization",),
}


def check_counts(graph: onnx.GraphProto, operators: Sequence[Operator]) -> None:
    """Raises ExportError for a node that no operator of the module becomes."""
    if any(operator.name not in ALLOWED for operator in operators):
        return
    left = Counter(name for operator in operators for name in _nodes_of(operator))
    # Tensors that depend on an input, and those that depend on more than its sizes.
    inputs = {one.name for one in graph.input} - {one.name for one in graph.initializer}
    variable, content = set(inputs), set(inputs)
    for position, node in enumerate(graph.node):
        if not variable.intersection(node.input):
            continue
        reader = f"node {position} ({node.op_type})"
        if node.op_type in MOVES:
            _check_move(node, reader, content)
        elif not left[node.op_type]:
            raise ExportError("weights", f"{reader} has no counterpart in the model, whose operators need fewer")
        else:
            left[node.op_type] -= 1
        variable.update(node.output)
        if node.op_type not in SIZES and content.intersection(node.input):
            content.update(node.output)


def _nodes_of(operator: Operator) -> Iterator[str]:
    yield from ALLOWED[operator.name]
    if operator.name in RECURRENT:
        yield from [RECURRENT[operator.name]] * operator.arguments["num_layers"]


def _check_move(node: onnx.NodeProto, reader: str, content: set[str]) -> None:
    first = MOVES[node.op_type]
    bounds = [] if first is None else node.input[first:]
    if content.intersection(bounds):
        raise ExportError("weights", f"{reader} moves elements to where the values of an input say")
