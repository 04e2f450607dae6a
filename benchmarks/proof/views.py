"""What three readers see in one ONNX file, in a form that can be compared.

A view holds all nodes (domain, operator, inputs, outputs, attributes, subgraphs), initializers with their bytes, the
names of inputs and outputs, opsets, and the metadata of the model.
"""

from collections.abc import Iterator
from typing import Any

import onnx
from onnx import numpy_helper

from service.onnx_wire import Message, read_model

View = dict[str, Any]
# The fields of elements of a tensor that are not raw, and the field of the value of each type of attribute.
LISTS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")
STRING = onnx.TensorProto.STRING
ATTRIBUTES = {1: "f", 2: "i", 3: "s", 6: "floats", 7: "ints", 8: "strings"}
DEFAULTS = {"f": 0.0, "i": 0, "s": b""}


def our_view(content: bytes) -> View:
    """What `service.onnx_wire` reads. Raises ValueError."""
    model = read_model(content)
    opsets = [(_domain(entry.text("domain")), entry.number("version")) for entry in model.messages("opset_import")]
    (graph,) = model.messages("graph")
    metadata = [(entry.text("key"), entry.text("value")) for entry in model.messages("metadata_props")]
    return {
        "opsets": _distinct(opsets),
        "ir": model.number("ir_version"),
        "metadata": sorted(metadata),
        **_our_graph(graph, content),
    }


def _distinct(opsets: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Equal imports once, in order; of different ones of a domain, both."""
    return sorted(set(opsets))


def _our_graph(graph: Message, content: bytes) -> View:
    nodes = [
        (
            _domain(node.text("domain")),
            node.text("op_type"),
            node.texts("input"),
            node.texts("output"),
            {it.text("name"): _our_attribute(it, content) for it in node.messages("attribute")},
        )
        for node in graph.messages("node")
    ]
    return _lift_constants(
        {
            "nodes": nodes,
            "tensors": {tensor.text("name"): _our_tensor(tensor, content) for tensor in graph.messages("initializer")},
            "inputs": [value.text("name") for value in graph.messages("input")],
            "outputs": [value.text("name") for value in graph.messages("output")],
        }
    )


def _our_attribute(attribute: Message, content: bytes) -> Any:
    for graph in attribute.messages("g"):
        return _our_graph(graph, content)
    for tensor in attribute.messages("t"):
        return _our_tensor(tensor, content)
    name = ATTRIBUTES[attribute.number("type")]
    values = [content[value] if isinstance(value, slice) else value for value in attribute.values.get(name, ())]
    # The default of protobuf stands for an absent value.
    return values if name not in DEFAULTS else (values or [DEFAULTS[name]])[0]


def _our_tensor(tensor: Message, content: bytes) -> tuple[Any, ...]:
    # The `onnx` package only turns elements into an array; which bytes they are is decided here.
    proto = onnx.TensorProto(data_type=tensor.number("data_type"), dims=tensor.numbers("dims"))
    if raw := tensor.span("raw_data"):
        proto.raw_data = content[raw]
    for name in LISTS:
        getattr(proto, name).extend(tensor.values.get(name, ()))
    proto.string_data.extend(
        content[value] for value in tensor.values.get("string_data", ()) if isinstance(value, slice)
    )
    return _tensor(proto)


def proto_view(content: bytes) -> View:
    """The same of a model as the `onnx` package reads it. Raises whatever protobuf raises."""
    model = onnx.load_from_string(content)
    if model.functions or model.training_info:
        raise ValueError("it has functions or training information")
    opsets = [(_domain(entry.domain), entry.version) for entry in model.opset_import]
    return {
        "opsets": _distinct(opsets),
        "ir": model.ir_version,
        "metadata": sorted((entry.key, entry.value) for entry in model.metadata_props),
        **_graph(model.graph),
    }


def _graph(graph: onnx.GraphProto) -> View:
    if graph.sparse_initializer or graph.quantization_annotation:
        raise ValueError("it has sparse initializers or annotations")
    nodes = [
        (
            _domain(node.domain) + node.overload,
            node.op_type,
            list(node.input),
            list(node.output),
            {attribute.name: _attribute(attribute) for attribute in node.attribute},
        )
        for node in graph.node
    ]
    return _lift_constants(
        {
            "nodes": nodes,
            "tensors": {tensor.name: _tensor(tensor) for tensor in graph.initializer},
            "inputs": [value.name for value in graph.input],
            "outputs": [value.name for value in graph.output],
        }
    )


def _attribute(attribute: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, onnx.GraphProto):
        return _graph(value)
    return _tensor(value) if isinstance(value, onnx.TensorProto) else value


def _tensor(tensor: onnx.TensorProto) -> tuple[Any, ...]:
    if tensor.external_data or tensor.data_location:
        raise ValueError("it has external data")
    # An array of strings holds pointers.
    values = list(tensor.string_data) if tensor.data_type == STRING else numpy_helper.to_array(tensor).tobytes()
    return tensor.data_type, tuple(tensor.dims), values


def _domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def _lift_constants(view: View) -> View:
    """Turn nodes that hold a tensor into initializers, as onnxruntime does when it loads a graph."""
    lifted = [node for node in view["nodes"] if node[1] == "Constant" and isinstance(node[4].get("value"), tuple)]
    tensors = {node[3][0]: node[4]["value"] for node in lifted}
    return {
        **view,
        "nodes": [node for node in view["nodes"] if node not in lifted],
        "tensors": view["tensors"] | tensors,
    }


def differences(ours: View, theirs: View, *, is_runtime: bool = False) -> Iterator[str]:
    """Name what differs. onnxruntime adds opsets of other domains."""
    if is_runtime:
        domains = {domain for domain, _ in ours["opsets"]}
        theirs = {**theirs, "opsets": [entry for entry in theirs["opsets"] if entry[0] in domains]}
    for name in ("ir", "opsets", "metadata"):
        if ours[name] != theirs[name]:
            yield f"{name}: {ours[name]} and {theirs[name]}"
    yield from _graph_differences(ours, theirs, is_runtime)


def _graph_differences(ours: View, theirs: View, is_runtime: bool) -> Iterator[str]:
    """Name what differs in a graph. onnxruntime adds default attributes and drops tensors that nothing reads."""
    for name in ("inputs", "outputs"):
        if ours[name] != theirs[name]:
            yield f"{name}: {ours[name]} and {theirs[name]}"
    names = theirs["tensors"].keys() | (ours["tensors"].keys() if not is_runtime else set())
    for name in names:
        if ours["tensors"].get(name) != theirs["tensors"].get(name):
            yield f"tensor {name!r}"
    if len(ours["nodes"]) != len(theirs["nodes"]):
        yield f"{len(ours['nodes'])} and {len(theirs['nodes'])} nodes"
    # onnxruntime writes the nodes in its order of execution.
    for left, right in zip(sorted(ours["nodes"], key=_key), sorted(theirs["nodes"], key=_key), strict=False):
        if left[:4] != right[:4] or (not is_runtime and left[4].keys() != right[4].keys()):
            yield f"node {left[:4]} {sorted(left[4])} and {right[:4]} {sorted(right[4])}"
        for name, value in left[4].items():
            yield from _attribute_differences(name, value, right[4].get(name), is_runtime)


def _attribute_differences(name: str, ours: Any, theirs: Any, is_runtime: bool) -> Iterator[str]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        yield from _graph_differences(ours, theirs, is_runtime)
    # Their text is compared, because NaN does not equal itself.
    elif repr(ours) != repr(theirs):
        yield f"attribute {name!r}: {ours} and {theirs}"


def _key(node: tuple[Any, ...]) -> str:
    return repr(node[:4])
