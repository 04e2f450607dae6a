"""Edits of a graph whose weights change their type: nodes replaced in their places, initializers added and removed."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper


class GraphEditor:
    """The main graph of a copy of a model. It edits no subgraph; what they read stays as it is."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self.graph = self.model.graph
        self._initializers = {tensor.name: tensor for tensor in self.graph.initializer}
        self._names = {name for node in _all_nodes(self.graph) for name in (*node.input, *node.output)}
        self._names |= set(self._initializers) | {value.name for value in (*self.graph.input, *self.graph.output)}

    def weights(self, name: str) -> npt.NDArray[np.float32] | None:
        """The values of an initializer of float32; None for anything else."""
        tensor = self._initializers.get(name)
        if tensor is None or tensor.data_type != onnx.TensorProto.FLOAT:
            return None
        return numpy_helper.to_array(tensor).astype(np.float32)

    def constant(self, values: npt.NDArray[np.generic], name: str) -> str:
        """Add an initializer, and return its name, which is new."""
        tensor = numpy_helper.from_array(np.ascontiguousarray(values), self.name(name))
        self.graph.initializer.append(tensor)
        return tensor.name

    def node(self, operator: str, inputs: list[str], name: str, **attributes: object) -> onnx.NodeProto:
        """A node that is in no graph yet, with one output of a new name."""
        output = self.name(name)
        return helper.make_node(operator, inputs, [output], name=output, **attributes)

    def name(self, wish: str) -> str:
        """A name that nothing in the graph has."""
        number, name = 0, wish
        while name in self._names:
            number += 1
            name = f"{wish}_{number}"
        self._names.add(name)
        return name

    def replace_nodes(self, replacements: dict[int, list[onnx.NodeProto]]) -> bytes:
        """Put nodes in the places of others, by their positions, and return the model without unread initializers."""
        nodes = [
            node for position, current in enumerate(self.graph.node) for node in replacements.get(position, [current])
        ]
        del self.graph.node[:]
        self.graph.node.extend(nodes)
        read = Counter(name for node in _all_nodes(self.graph) for name in node.input)
        read.update(value.name for value in self.graph.output)
        initializers = [tensor for tensor in self.graph.initializer if tensor.name in read]
        del self.graph.initializer[:]
        self.graph.initializer.extend(initializers)
        # The types of what is between the nodes are inferred again.
        del self.graph.value_info[:]
        return self.model.SerializeToString(deterministic=True)


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs among the attributes of an If, a Loop or a Scan."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for subgraph in subgraphs(node):
            yield from _all_nodes(subgraph)
