"""Graphs in half precision: weights and activations are float16, inputs and outputs stay as they were.

onnxruntime's own converter makes the served graph. Its reference computes in float32, with weights rounded to float16.
"""

import warnings

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16

from export.precision.graph_editor import GraphEditor
from export.precision.integer import Graphs


def half_graphs(model: bytes) -> Graphs | None:
    """Convert a graph to float16; None if it has no weights in float32."""
    proto = onnx.load_from_string(model)
    with warnings.catch_warnings():
        # It warns of numbers that float16 does not hold, which it moves to the nearest that it does.
        warnings.simplefilter("ignore")
        serving = convert_float_to_float16(onnx.load_from_string(model), keep_io_types=True)
    rounded = {
        tensor.name: numpy_helper.to_array(tensor).astype(np.float32)
        for tensor in serving.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT16
    }
    if not rounded:
        return None
    del serving.graph.value_info[:]
    _sort_nodes(serving.graph)
    editor = GraphEditor(proto)
    for tensor in editor.graph.initializer:
        if tensor.name in rounded and tensor.data_type == onnx.TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(rounded[tensor.name], tensor.name))
    return Graphs(serving=serving.SerializeToString(deterministic=True), reference=editor.replace_nodes({}))


def _sort_nodes(graph: onnx.GraphProto) -> None:
    """Put every node behind those that it reads: the converter appends its casts to the end."""
    producers = {name: node for node in graph.node for name in node.output if name}
    ordered: list[onnx.NodeProto] = []
    placed = set[str]()
    pending = list(reversed(graph.node))
    while pending:
        node = pending.pop()
        if any(name in placed for name in node.output if name):
            continue
        waiting = [producers[name] for name in node.input if name in producers and name not in placed]
        if waiting:
            pending += [node, *waiting]
            continue
        ordered.append(node)
        placed.update(filter(None, node.output))
    ordered = [onnx.NodeProto.FromString(node.SerializeToString(deterministic=True)) for node in ordered]
    del graph.node[:]
    graph.node.extend(ordered)
