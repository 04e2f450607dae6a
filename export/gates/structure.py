"""The structure gate: declared axes vary, and the same input gives the same output.

An exporter that cannot express something may silently fix a length. Such a graph is right at the example's size and
wrong at all others. This gate recognises it by its shapes; the weights gate recognises layers that are unrolled.
The service's own check of the operators refuses a graph that draws random numbers, has a node in training mode, or has
control flow that its recipe does not admit (`control_flow`), because a loop may take any time.
"""

from collections import Counter
from collections.abc import Iterator

import onnx

from export.candidate import Candidate
from export.errors import ExportError
from service.contract.tensors import TensorSpec
from service.operators import check_operators


def check_structure(candidate: Candidate) -> dict[str, int]:
    """Count the graph's nodes by operator. Raises ExportError."""
    try:
        check_operators(
            candidate.model,
            opset=candidate.manifest.provenance.opset,
            control_flow=candidate.manifest.control_flow,
            data_files=candidate.data_files,
        )
        graph = onnx.load_from_string(candidate.model).graph
    # protobuf raises exceptions of its own.
    except Exception as error:
        raise ExportError("structure", f"the service must not load this graph: {error}") from error
    _check_axes("input", candidate.manifest.inputs, list(graph.input))
    _check_axes("output", candidate.manifest.outputs, list(graph.output))
    operators = Counter(node.op_type for node in _all_nodes(graph))
    # Creating the session raises if the service would reject the model.
    _ = candidate.session
    return dict(sorted(operators.items()))


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of the graph and of its subgraphs."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for subgraph in (attribute.g, *attribute.graphs):
                yield from _all_nodes(subgraph)


def _check_axes(side: str, specs: tuple[TensorSpec, ...], values: list[onnx.ValueInfoProto]) -> None:
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values
    }
    for spec in specs:
        if spec.name not in shapes:
            raise ExportError("structure", f"the graph has no {side} {spec.name!r}; it has {sorted(shapes)}")
        shape = shapes[spec.name]
        for declared, axis in zip(spec.shape, shape, strict=False):
            if isinstance(declared, str) and declared != axis:
                raise ExportError(
                    "structure",
                    f"{side} {spec.name!r}: axis {declared!r} is declared dynamic, but the graph has {axis!r} "
                    f"(shape {shape}, declared {list(spec.shape)})",
                )
        if list(spec.shape) != shape:
            raise ExportError("structure", f"{side} {spec.name!r} has shape {shape}, declared {list(spec.shape)}")
