"""The constants of an exported graph: initializers, Constant nodes and float attributes, in the order of the nodes.

Float constants are returned in PyTorch's conventions: the second factor of a Gemm as [in, out], recurrent weights with
PyTorch's order of gates, and joined biases apart.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import defs, numpy_helper
from onnx.helper import get_attribute_value

from export.errors import ExportError
from export.gates.weights.constant import Array, GraphConstant
from export.graph.recurrent import OPSET

# Where ONNX has each gate of PyTorch: its LSTM has i f g o, ONNX i o f c, where g is c; its GRU r z n, ONNX z r h.
GATES = {"LSTM": ["iofc".index(gate) for gate in "ifco"], "GRU": ["zrh".index(gate) for gate in "rzh"], "RNN": [0]}
# Attributes without effect at this value. BatchNormalization's momentum never has one in inference.
NEUTRAL = {("Gemm", "alpha"): 1.0, ("Gemm", "beta"): 1.0}
NOTHING_STORED: Mapping[str, Array] = {}
UNUSED = {("BatchNormalization", "momentum")}


# The name and content of each input of a node that is a float constant.
Inputs = Sequence[tuple[str, Array] | None]


@dataclass(frozen=True, kw_only=True)
class GraphConstants:
    """`floats` in order of use, `integers` and booleans by name, and `unread`, the initializers that no node reads."""

    floats: tuple[GraphConstant, ...]
    integers: dict[str, Array]
    unread: dict[str, Array]


def read_constants(graph: onnx.GraphProto, stored: Mapping[str, Array] = NOTHING_STORED) -> GraphConstants:
    """All constants of the graph. `stored` holds the initializers of a data file. Raises ExportError if one is
    ambiguous."""
    if graph.sparse_initializer:
        raise ExportError("weights", "the graph has sparse initializers, which the exporter never writes")
    repeated = [name for name, count in Counter(one.name for one in graph.initializer).items() if count > 1]
    if repeated:
        raise ExportError("weights", f"two initializers have the name {repeated[0]!r}")
    arrays = {
        one.name: stored[one.name] if one.name in stored else numpy_helper.to_array(one) for one in graph.initializer
    }
    floats: list[GraphConstant] = []
    integers: dict[str, Array] = {}
    read: set[str] = set()
    for position, node in enumerate(graph.node):
        if node.op_type == "Constant":
            arrays[node.output[0]] = _constant(node)
            continue
        reader = f"node {position} ({node.op_type})"
        read.update(node.input)
        inputs = [
            (name, arrays[name]) if name in arrays and arrays[name].dtype.kind == "f" else None for name in node.input
        ]
        floats += _recurrent(node, inputs, reader) if node.op_type in GATES else _inputs(node, inputs, reader)
        attributes = list(_attributes(node, reader))
        floats += [one for one in attributes if one.raw.dtype.kind == "f"]
        integers |= {f"{one.name} of {reader}": one.raw for one in attributes if one.raw.dtype.kind != "f"}
    integers |= {f"initializer {name!r}": array for name, array in arrays.items() if array.dtype.kind != "f"}
    return GraphConstants(
        floats=tuple(floats),
        integers=integers,
        unread={name: array for name, array in arrays.items() if name not in read},
    )


def _constant(node: onnx.NodeProto) -> Array:
    value = get_attribute_value(node.attribute[0])
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    is_float = node.attribute[0].name in ("value_float", "value_floats")
    return np.array(value, np.float32 if is_float else None)


def _inputs(node: onnx.NodeProto, inputs: Inputs, reader: str) -> Iterator[GraphConstant]:
    for slot, constant in enumerate(inputs):
        if constant is not None:
            name, raw = constant
            value = raw.T if node.op_type == "Gemm" and slot == 1 and _transposes(node) else raw
            yield GraphConstant(name=f"initializer {name!r}", reader=reader, raw=raw, value=value)


def _recurrent(node: onnx.NodeProto, inputs: Inputs, reader: str) -> Iterator[GraphConstant]:
    """For each direction the weights of the input, those of the state and, if there are any, both biases."""
    order, weights = GATES[node.op_type], [constant for constant in inputs[1:4] if constant is not None]
    reordered = "" if len(order) == 1 else "gates reordered"
    for direction in range(len(weights[0][1]) if weights else 0):
        for name, raw in weights:
            is_bias = raw.ndim == 2
            if direction >= len(raw) or raw.shape[1] % (len(order) * (1 + is_bias)):
                raise ExportError("weights", f"initializer {name!r} {raw.shape} does not fit {reader}")
            for part in np.split(raw[direction], 2) if is_bias else [raw[direction]]:
                gates = np.split(part, len(order))
                change = " and ".join(filter(None, (reordered, "joined" if is_bias or len(raw) > 1 else "")))
                value = np.concatenate([gates[gate] for gate in order])
                yield GraphConstant(name=f"initializer {name!r}", reader=reader, raw=raw, value=value, change=change)
    yield from _inputs(node, inputs[4:], reader)


def _transposes(node: onnx.NodeProto) -> bool:
    return any(attribute.name == "transB" and attribute.i for attribute in node.attribute)


def _attributes(node: onnx.NodeProto, reader: str) -> Iterator[GraphConstant]:
    """The attributes that hold a number or a tensor, with ONNX's defaults for those that are absent."""
    attributes = {name: one.default_value for name, one in defs.get_schema(node.op_type, OPSET).attributes.items()}
    attributes |= {one.name: one for one in node.attribute}
    for name, attribute in sorted(attributes.items()):
        if attribute.type in (onnx.AttributeProto.FLOAT, onnx.AttributeProto.FLOATS):
            array = np.array(get_attribute_value(attribute), np.float32)
        elif attribute.type == onnx.AttributeProto.TENSOR:
            array = numpy_helper.to_array(attribute.t)
        else:
            continue
        key = (node.op_type, name)
        if key not in UNUSED and not (key in NEUTRAL and array == NEUTRAL[key]):
            yield GraphConstant(name=f"attribute {name!r}", reader=reader, raw=array, value=array)
