"""The graph that is served: that of the file, between the nodes for the reader and the head of the spec."""

from collections.abc import Sequence
from typing import Any

import onnx
from onnx import helper

from export.graph.adapters import (
    column_inputs,
    head_outputs,
    image_inputs,
    renamed,
    series_inputs,
    table_inputs,
    text_inputs,
    value_info,
)
from export.graph.node_builder import MIN_OPSET, NodeBuilder
from export.sources.module.adapter import Adapter
from export.sources.module.inputs import ColumnsInput
from export.sources.onnx_file.graph import ForeignGraph, Value, prune
from export.spec import ImagePart, SeriesPart, Spec, TablePart, TextPart
from service.contract.tensors import Specs

OWN, BEFORE, BEHIND = "model/", "reader/", "head/"


def served_graph(graph: ForeignGraph, inputs: Specs, outputs: Specs) -> bytes:
    """The graph of the file with declared axes, and without other outputs."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    _declare(model, inputs, outputs)
    return model.SerializeToString(deterministic=True)


def adapted_graph(graph: ForeignGraph, spec: Spec, adapter: Adapter, inputs: Specs, outputs: Specs) -> bytes:
    """The graph with canonical inputs and outputs. Raises ValueError for an opset that is too old."""
    if graph.opset < MIN_OPSET:
        raise ValueError(
            f"{graph.path} has opset {graph.opset}; a reader or head needs {MIN_OPSET} or newer, which "
            "onnx.version_converter.convert_version gives"
        )
    model = renamed(graph.model, OWN)
    before, behind = NodeBuilder(BEFORE), NodeBuilder(BEHIND)
    values = {value.name: value for value in graph.inputs}
    made = _own_inputs(before, spec, adapter, {name: value.dtype for name, value in values.items()})
    for name, value in values.items():
        before.nodes.append(_cast(made[name], OWN + name, value.dtype))
    chosen = _head_nodes(behind, graph, spec, adapter)
    model.graph.node.extend(behind.nodes)
    nodes = [*before.nodes, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend([*before.constants, *behind.constants])
    model.graph.node.extend(helper.make_node("Identity", [chosen[spec.name]], [spec.name]) for spec in outputs)
    _declare(model, inputs, outputs)
    return model.SerializeToString(deterministic=True)


def _own_inputs(build: NodeBuilder, spec: Spec, adapter: Adapter, dtypes: dict[str, str]) -> dict[str, str]:
    """The graph's own inputs by the names of the values that are made for them."""
    part, reader = spec.reader, adapter.reader
    names: Any = getattr(reader, "names", ())
    match part:
        case ImagePart():
            return image_inputs(build, part, str(reader.name))
        case SeriesPart():
            return series_inputs(build, part, str(reader.name), _extras(reader))
        case TextPart():
            return text_inputs(build, str(reader.name), _extras(reader))
        case TablePart() if isinstance(reader, ColumnsInput):
            return column_inputs(build, part, dtypes)
        case TablePart():
            return table_inputs(build, part, names)
    return dict(zip(names, (tensor.name for tensor in adapter.inputs), strict=True))


def _extras(reader: Any) -> dict[str, str]:
    return dict(reader.extras)


def _head_nodes(build: NodeBuilder, graph: ForeignGraph, spec: Spec, adapter: Adapter) -> dict[str, str]:
    """Nodes behind the graph; returns the value of every output of the head."""
    if adapter.outputs:
        return {name: OWN + name for name in adapter.outputs}
    numbers = [value for value in graph.outputs if value.dtype != "string"]
    output = _chosen(numbers, adapter.output)
    made = head_outputs(build, spec.head, _float32(build, output), len(output.axes))
    if adapter.has_state:
        for name, value in zip(("next_h", "next_c"), numbers[-2:], strict=True):
            made[name] = build("Transpose", _float32(build, value), perm=[1, 0, 2])
    return made


def _chosen(values: Sequence[Value], output: Any) -> Value:
    by_name = {value.name: value for value in values}
    return by_name[output] if isinstance(output, str) else values[output or 0]


def _float32(build: NodeBuilder, value: Value) -> str:
    if value.dtype in {"float64", "float16"}:
        return build("Cast", OWN + value.name, to=onnx.TensorProto.FLOAT)
    return OWN + value.name


def _cast(source: str, target: str, dtype: str) -> onnx.NodeProto:
    """A node that gives an input of the graph its own type; of the same type already, it changes nothing."""
    if dtype == "string":
        return helper.make_node("Identity", [source], [target])
    kind = value_info(target, dtype, ()).type.tensor_type.elem_type
    return helper.make_node("Cast", [source], [target], to=kind)


def _declare(model: onnx.ModelProto, inputs: Specs, outputs: Specs) -> None:
    for values, specs in ((model.graph.input, inputs), (model.graph.output, outputs)):
        del values[:]
        values.extend(value_info(spec.name, spec.dtype, spec.shape) for spec in specs)
    prune(model)
