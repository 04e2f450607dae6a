"""Graphs whose weights are integers: the one that is served, and its reference of standard operators on float32.

Products of matrices become MatMulNBits, which also rounds its input to 8 bits, with a scale for each block of each row:
no number of another row takes part, so the row has the same bits in every batch. (DynamicQuantizeLinear, which
`quantize_dynamic` of onnxruntime puts in front of a product or an LSTM, takes one scale over the whole batch, and the
answers of an item then depend on its neighbours.) Embeddings, convolutions and recurrent layers store int8 in either
precision and compute in float32, in which onnxruntime has quicker or batch-invariant kernels for them.

The reference has the same weights as float32, and rounds the inputs of products by operators of its own.

Shapes: K inputs, N outputs of a matrix product.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx

from export.precision.graph_editor import GraphEditor
from export.precision.quantization import BLOCK, ROW_BITS, quantize_blocks, quantize_rows

MICROSOFT = "com.microsoft"
# Smaller tensors stay in float32: they save nothing, and a layer of few numbers loses most.
MIN_WEIGHTS = 4096
# onnxruntime's code for "round the input to int8"; a lower level computes in float32, several times as slowly.
INT8_INPUTS = 4
# The positions of the weights among the inputs, and the number of leading axes that have scales of their own.
STORED = {"LSTM": ((1, 2), 2), "GRU": ((1, 2), 2), "RNN": ((1, 2), 2), "Conv": ((1,), 1)}


@dataclass(frozen=True, kw_only=True)
class Graphs:
    """The bytes of the served graph and of its reference, which has the same inputs and outputs."""

    serving: bytes
    reference: bytes


@dataclass(kw_only=True)
class _Pair:
    """Both graphs while their nodes are replaced, by position."""

    serving: GraphEditor
    reference: GraphEditor
    of_serving: dict[int, list[onnx.NodeProto]] = field(default_factory=dict)
    of_reference: dict[int, list[onnx.NodeProto]] = field(default_factory=dict)


def integer_graphs(model: bytes, bits: int) -> Graphs | None:
    """Store the weights of products in `bits` of 4 or 8, those of other layers in 8; None if no weights are there."""
    proto = onnx.load_from_string(model)
    pair = _Pair(serving=GraphEditor(proto), reference=GraphEditor(proto))
    for position, node in enumerate(proto.graph.node):
        if node.domain:
            continue
        match node.op_type:
            case "MatMul" | "Gemm":
                _replace_product(pair, position, node, bits)
            case "Gather":
                _replace_embedding(pair, position, node)
            case operator if operator in STORED:
                _store_weights(pair, position, node)
    if not pair.of_serving:
        return None
    if any(node.domain == MICROSOFT for nodes in pair.of_serving.values() for node in nodes):
        pair.serving.model.opset_import.append(onnx.helper.make_opsetid(MICROSOFT, 1))
    return Graphs(
        serving=pair.serving.replace_nodes(pair.of_serving), reference=pair.reference.replace_nodes(pair.of_reference)
    )


def _replace_product(pair: _Pair, position: int, node: onnx.NodeProto, bits: int) -> None:
    attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
    weights = pair.serving.weights(node.input[1])
    is_plain = all(attributes.get(name, default) == default for name, default in (("alpha", 1), ("beta", 1)))
    if weights is None or weights.ndim != 2 or weights.size < MIN_WEIGHTS or not is_plain or attributes.get("transA"):
        return
    weights_KN = weights.T if attributes.get("transB") else weights
    blocks, name = quantize_blocks(weights_KN, bits), node.input[1]
    bias = list(node.input[2:3])
    editor = pair.serving
    stored = [editor.constant(blocks.packed, f"{name}_int{bits}"), editor.constant(blocks.scales, f"{name}_scales")]
    product = editor.node(
        "MatMulNBits",
        [node.input[0], *stored],
        f"{node.output[0]}_product",
        domain=MICROSOFT,
        K=weights_KN.shape[0],
        N=weights_KN.shape[1],
        bits=bits,
        block_size=BLOCK,
        accuracy_level=INT8_INPUTS,
    )
    pair.of_serving[position] = _with_bias(editor, [product], bias, node.output[0])
    pair.of_reference[position] = _reference_product(pair.reference, node, blocks.restored, bias)


def _with_bias(editor: GraphEditor, nodes: list[onnx.NodeProto], bias: list[str], output: str) -> list[onnx.NodeProto]:
    """The nodes, whose last one gives `output` once the bias is added, if there is one."""
    if bias:
        nodes = [*nodes, editor.node("Add", [nodes[-1].output[0], *bias], f"{output}_sum")]
    nodes[-1].output[0] = output
    return nodes


def _reference_product(
    editor: GraphEditor, node: onnx.NodeProto, weights_KN: npt.NDArray[np.float32], bias: list[str]
) -> list[onnx.NodeProto]:
    """The product of float32 weights with an input that is rounded to 8 bits block by block."""
    num_inputs, num_outputs = weights_KN.shape
    num_blocks, output = -(-num_inputs // BLOCK), node.output[0]
    nodes: list[onnx.NodeProto] = []

    def step(operator: str, inputs: list[str], **attributes: object) -> str:
        nodes.append(editor.node(operator, inputs, f"{output}_{operator.lower()}", **attributes))
        return nodes[-1].output[0]

    def number(value: float) -> str:
        return editor.constant(np.array(value, np.float32), f"{output}_number")

    def sizes(*values: int) -> str:
        return editor.constant(np.array(values, np.int64), f"{output}_sizes")

    rows = step("Reshape", [node.input[0], sizes(-1, num_inputs)])
    padded = step("Pad", [rows, sizes(0, 0, 0, num_blocks * BLOCK - num_inputs)])
    blocks = step("Reshape", [padded, sizes(-1, num_blocks, BLOCK)])
    largest = step("ReduceMax", [step("Abs", [blocks]), sizes(-1)], keepdims=1)
    scales = step("Div", [largest, number((1 << (ROW_BITS - 1)) - 1)])
    scales = step("Where", [step("Greater", [scales, number(0)]), scales, number(1)])
    rounded = step("Mul", [step("Round", [step("Div", [blocks, scales])]), scales])
    wide = np.zeros((num_blocks * BLOCK, num_outputs), np.float32)
    wide[:num_inputs] = weights_KN
    weights = editor.constant(wide, f"{node.input[1]}_restored")
    product = step("MatMul", [step("Reshape", [rounded, sizes(-1, num_blocks * BLOCK)]), weights])
    leading = step("Slice", [step("Shape", [node.input[0]]), sizes(0), sizes(-1)])
    step("Reshape", [product, step("Concat", [leading, sizes(num_outputs)], axis=0)])
    return _with_bias(editor, nodes, bias, output)


def _replace_embedding(pair: _Pair, position: int, node: onnx.NodeProto) -> None:
    weights = pair.serving.weights(node.input[0])
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
    if weights is None or weights.ndim != 2 or weights.size < MIN_WEIGHTS or axis:
        return
    rows, (name, ids), output, editor = quantize_rows(weights, 1), node.input[:2], node.output[0], pair.serving
    stored = editor.node("Gather", [editor.constant(rows.stored, f"{name}_int8"), ids], f"{output}_int8")
    scales = editor.node("Gather", [editor.constant(rows.scales, f"{name}_scales"), ids], f"{output}_scales")
    cast = editor.node("Cast", [stored.output[0]], f"{output}_float", to=onnx.TensorProto.FLOAT)
    product = editor.node("Mul", [cast.output[0], scales.output[0]], f"{output}_product")
    product.output[0] = output
    pair.of_serving[position] = [stored, scales, cast, product]
    pair.of_reference[position] = [_with_inputs(node, {0: pair.reference.constant(rows.restored, f"{name}_restored")})]


def _store_weights(pair: _Pair, position: int, node: onnx.NodeProto) -> None:
    """Store the weights of a layer in int8; onnxruntime makes them float32 once, while it loads the graph."""
    positions, num_axes = STORED[node.op_type]
    nodes: list[onnx.NodeProto] = []
    of_serving, of_reference = dict[int, str](), dict[int, str]()
    for place in positions:
        weights = pair.serving.weights(node.input[place])
        if weights is None or weights.size < MIN_WEIGHTS:
            continue
        rows, name, editor = quantize_rows(weights, num_axes), node.input[place], pair.serving
        cast = editor.node(
            "Cast", [editor.constant(rows.stored, f"{name}_int8")], f"{name}_float", to=onnx.TensorProto.FLOAT
        )
        scales = editor.constant(rows.scales, f"{name}_scales")
        product = editor.node("Mul", [cast.output[0], scales], f"{name}_product")
        nodes += [cast, product]
        of_serving[place] = product.output[0]
        of_reference[place] = pair.reference.constant(rows.restored, f"{name}_restored")
    if nodes:
        pair.of_serving[position] = [*nodes, _with_inputs(node, of_serving)]
        pair.of_reference[position] = [_with_inputs(node, of_reference)]


def _with_inputs(node: onnx.NodeProto, names: dict[int, str]) -> onnx.NodeProto:
    changed = onnx.NodeProto()
    changed.CopyFrom(node)
    for place, name in names.items():
        changed.input[place] = name
    return changed
