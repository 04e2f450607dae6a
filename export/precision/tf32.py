"""Graphs for TF32, in which a GPU keeps 10 bits of the mantissa of both inputs of a product, and sums in float32.

The served graph is that in float32, byte for byte: only the session of a GPU computes it in TF32. Its reference
simulates that on any processor, by rounding the inputs of every product to the nearest number of 10 bits.

Not simulated: the state inside a recurrent layer, the probabilities inside Attention, what an Einsum of three inputs
has computed of two, and numbers beyond MAX_ROUNDED. A GPU that cuts bits off instead of rounding errs twice as much.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from export.precision.graph_editor import GraphEditor, subgraphs
from export.precision.integer import Graphs

# float32 has 23 bits in its mantissa, of which TF32 drops 13.
SPLITTER = (1 << 13) + 1
# Larger numbers would overflow while they are rounded.
MAX_ROUNDED = 2.0**114
# The positions of the inputs that are multiplied with each other. The state h of an LSTM and an RNN is only multiplied;
# a GRU adds it as well.
MULTIPLIED: Mapping[str, tuple[int, ...]] = {
    "MatMul": (0, 1),
    "Gemm": (0, 1),
    "Conv": (0, 1),
    "ConvTranspose": (0, 1),
    "DeformConv": (0, 1),
    "Attention": (0, 1, 2),
    "LSTM": (0, 1, 2, 5),
    "RNN": (0, 1, 2, 5),
    "GRU": (0, 1, 2),
}


def tf32_graphs(model: bytes) -> Graphs | None:
    """The graph as it is, with a reference that rounds the inputs of its products; None if it has no products."""
    proto = onnx.load_from_string(model)
    rounding = _Rounding(proto)
    rounding.round_inputs(rounding.editor.graph, {})
    if not rounding.num_inputs:
        return None
    return Graphs(serving=model, reference=rounding.editor.replace_nodes({}))


def round_to_tf32(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Round to the nearest number of 10 bits, ties to the even one, by Veltkamp's splitting.

    T. J. Dekker, A floating-point technique for extending the available precision, 1971.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = values * np.float32(SPLITTER)
        split = scaled - (scaled - values)
    return np.where(np.abs(values) < MAX_ROUNDED, split, values)


class _Rounding:
    """A copy of a model in which the inputs of products are replaced, one by one."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.editor = GraphEditor(proto)
        self.num_inputs = 0
        self._others = set(_names_of_other_types(onnx.shape_inference.infer_shapes(proto).graph))
        self._constants: dict[str, str] = {}
        self._splitter = self.editor.constant(np.array(SPLITTER, np.float32), "tf32_splitter")
        self._limit = self.editor.constant(np.array(MAX_ROUNDED, np.float32), "tf32_limit")

    def round_inputs(self, graph: onnx.GraphProto, visible: Mapping[str, str]) -> None:
        """Have the products of a graph and of its subgraphs read rounded inputs; `visible` holds those made outside."""
        rounded, nodes = dict(visible), list[onnx.NodeProto]()
        for node in graph.node:
            for subgraph in subgraphs(node):
                self.round_inputs(subgraph, rounded)
            for place in _multiplied(node):
                name = node.input[place]
                if not name or name in self._others:
                    continue
                if name not in rounded:
                    steps = self._steps(name)
                    nodes += steps
                    rounded[name] = steps[-1].output[0] if steps else self._constants[name]
                node.input[place] = rounded[name]
                self.num_inputs += 1
            nodes.append(node)
        nodes = [onnx.NodeProto.FromString(node.SerializeToString(deterministic=True)) for node in nodes]
        del graph.node[:]
        graph.node.extend(nodes)

    def _steps(self, name: str) -> list[onnx.NodeProto]:
        """The nodes that round a tensor as round_to_tf32 does; none for weights, which are rounded here."""
        weights = self.editor.weights(name)
        if weights is not None:
            if name not in self._constants:
                self._constants[name] = self.editor.constant(round_to_tf32(weights), f"{name}_tf32")
            return []
        nodes: list[onnx.NodeProto] = []

        def step(operator: str, *inputs: str) -> str:
            nodes.append(self.editor.node(operator, list(inputs), f"{name}_{operator.lower()}"))
            return nodes[-1].output[0]

        scaled = step("Mul", name, self._splitter)
        split = step("Sub", scaled, step("Sub", scaled, name))
        step("Where", step("Less", step("Abs", name), self._limit), split, name)
        return nodes


def _multiplied(node: onnx.NodeProto) -> range | tuple[int, ...]:
    if node.domain not in {"", "ai.onnx"}:
        return ()
    if node.op_type == "Einsum":
        return range(len(node.input))
    return tuple(place for place in MULTIPLIED.get(node.op_type, ()) if place < len(node.input))


def _names_of_other_types(graph: onnx.GraphProto) -> Iterator[str]:
    """The tensors of a graph and its subgraphs that are not float32, as far as their types can be inferred."""
    for value in (*graph.input, *graph.value_info, *graph.output):
        if value.type.tensor_type.elem_type not in {TensorProto.UNDEFINED, TensorProto.FLOAT}:
            yield value.name
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            yield tensor.name
    for node in graph.node:
        for subgraph in subgraphs(node):
            yield from _names_of_other_types(subgraph)
