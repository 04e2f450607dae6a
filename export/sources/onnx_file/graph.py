"""A graph from elsewhere: read as the service will read it, without what a bundle does not need.

The graph that is served has each opset imported once, and no metadata, descriptions or initializers that callers could
replace; its nodes are those of the file, as far as its outputs need them.
"""

from dataclasses import dataclass
from pathlib import Path

import onnx

from export.graph.node_builder import MIN_OPSET
from service.operators import check_operators
from service.opsets.imports import ALIASES

# Pickles of several protocols, and the archives in which torch and joblib keep pickles.
PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04", b"x\x9c", b"\x1f\x8b")
DTYPES = {
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.DOUBLE: "float64",
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.STRING: "string",
    onnx.TensorProto.BOOL: "bool",
}
INTEGERS = {"INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"}
DTYPES |= {onnx.TensorProto.DataType.Value(name): name.lower() for name in INTEGERS}
Axis = int | str | None


@dataclass(frozen=True, kw_only=True)
class Value:
    """An input or output of a graph; an axis is a size, a name, or None if it is free and has no name."""

    name: str
    dtype: str
    axes: tuple[Axis, ...]


@dataclass(frozen=True, kw_only=True)
class ForeignGraph:
    """The graph of a file, cleaned. `path` is the file as it came, which is the reference."""

    path: Path
    model: onnx.ModelProto
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]

    @property
    def opset(self) -> int:
        return next(entry.version for entry in self.model.opset_import if not entry.domain)


def read_graph(path: Path, *, control_flow: bool = False) -> ForeignGraph:
    """Read a file that the service could load. Raises ValueError, one sentence with the file and the way out."""
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    with path.open("rb") as file:
        if file.read(8).startswith(PICKLES):
            raise ValueError(
                f"{path} is a pickle or an archive, which may run code when it is read; convert the model to ONNX, "
                "such as by skl2onnx.to_onnx for scikit-learn"
            )
    try:
        model = onnx.load(path)
    # protobuf raises exceptions of its own.
    except Exception as error:
        raise ValueError(f"{path} is no ONNX graph with all its weights: {_line(error)}") from error
    _clean(model)
    try:
        content = model.SerializeToString()
    except Exception as error:
        raise ValueError(f"{path} has more than 2 GB of weights, which an ONNX graph cannot hold: {error}") from error
    opsets = [entry.version for entry in model.opset_import if not entry.domain]
    try:
        check_operators(content, opset=opsets[0] if opsets else 0, control_flow=control_flow)
    except ValueError as error:
        hint = "; admit it by control_flow = true in the spec" if "control flow" in str(error) else ""
        raise ValueError(f"{path}: the service must not load this graph: {error}{hint}") from error
    return ForeignGraph(
        path=path,
        model=model,
        inputs=tuple(_value(value, path) for value in model.graph.input),
        outputs=tuple(_value(value, path) for value in model.graph.output),
    )


def prune(model: onnx.ModelProto) -> None:
    """Drop the nodes and weights that no output needs, in place."""
    graph = model.graph
    needed, nodes = {value.name for value in graph.output}, list[onnx.NodeProto]()
    for node in reversed(graph.node):
        if needed & set(node.output):
            nodes.append(node)
            needed |= _names_read(node)
    del graph.node[:]
    graph.node.extend(reversed(nodes))
    weights = [weight for weight in graph.initializer if weight.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(weights)


def _names_read(node: onnx.NodeProto) -> set[str]:
    """The names that a node and its subgraphs read."""
    names = set(node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            names |= {value.name for value in graph.output}
            for inner in graph.node:
                names |= _names_read(inner)
    return names


def _clean(model: onnx.ModelProto) -> None:
    """Keep what the graph computes, and drop the rest, in place."""
    graph = model.graph
    versions = {(ALIASES.get(entry.domain, entry.domain), entry.version) for entry in model.opset_import}
    used = {ALIASES.get(node.domain, node.domain) for node in _all_nodes(graph)}
    if "" not in used and all(domain for domain, _ in versions):
        # Converters write graphs of trees alone so. A bundle states the opset of the standard.
        versions.add(("", MIN_OPSET))
    del model.opset_import[:]
    for domain, version in sorted(versions):
        if domain in used or not domain:
            model.opset_import.append(onnx.helper.make_opsetid(domain, version))
    weights = {weight.name for weight in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    del graph.input[:]
    graph.input.extend(inputs)
    # Before version 4, every initializer had to be an input, too.
    model.ir_version = max(model.ir_version, 4)
    for holder in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output, model):
        for field in ("metadata_props", "doc_string"):
            holder.ClearField(field)
    for field in ("value_info", "quantization_annotation"):
        graph.ClearField(field)
    for node in _all_nodes(graph):
        node.ClearField("metadata_props")
        node.ClearField("doc_string")


def _all_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    nodes = list(graph.node)
    for node in nodes:
        for attribute in node.attribute:
            for subgraph in (attribute.g, *attribute.graphs):
                nodes += subgraph.node
    return nodes


def _value(value: onnx.ValueInfoProto, path: Path) -> Value:
    tensor = value.type.tensor_type
    if tensor.elem_type not in DTYPES:
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type)
        raise ValueError(f"{path}: {value.name!r} is of type {kind}, expected one of {', '.join(DTYPES.values())}")
    if not tensor.HasField("shape"):
        raise ValueError(f"{path}: {value.name!r} has no shape; run onnx.shape_inference.infer_shapes on the graph")
    axes = [dim.dim_param or (dim.dim_value if dim.HasField("dim_value") else None) for dim in tensor.shape.dim]
    # Some converters write 0 or -1 for an axis that is free.
    return Value(
        name=value.name,
        dtype=DTYPES[tensor.elem_type],
        axes=tuple(axis if isinstance(axis, str) or (axis is not None and axis > 0) else None for axis in axes),
    )


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
