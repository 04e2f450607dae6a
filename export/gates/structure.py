"""The structure gate: declared axes vary, recurrent layers are operators, and the same input gives the same output.

An exporter that cannot express something may silently fix a length or write one node per step. Such a graph is right at
the example's size and wrong at all others. This gate recognises it by its shapes and by the number of its operators.
The service's own check of the operators refuses a graph that draws random numbers, has a node in training mode, or has
control flow that its recipe does not admit (`control_flow`), because a loop may take any time.
"""

from collections import Counter
from collections.abc import Iterator

import onnx
from torch import nn

from export.candidate import Candidate
from export.errors import ExportError
from export.graph.recurrent import OPSET, operator_of
from service.contract.tensors import TensorSpec
from service.operators import check_operators
from training.layers import Ragged

# Twice what any layer needs: attention has 30 nodes for its five modules.
MAX_NODES_PER_MODULE = 12


def check_structure(candidate: Candidate) -> dict[str, int]:
    """Count the graph's nodes by operator. Raises ExportError."""
    try:
        check_operators(
            candidate.model,
            opset=OPSET,
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
    _check_operators(candidate, operators)
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


def _check_operators(candidate: Candidate, operators: Counter[str]) -> None:
    module = candidate.source.module
    if module is None:
        return
    modules = list(module.modules())
    expected = Counter("Conv" for module in modules if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d))
    for module in modules:
        if isinstance(module, Ragged):
            expected[operator_of(module.rnn)] += module.rnn.num_layers
    for name in ("Conv", "LSTM", "RNN"):
        if operators[name] != expected[name]:
            raise ExportError(
                "structure",
                f"{operators[name]} {name} nodes for {expected[name]} such layers in the model: unrolled or missing "
                f"(operators: {dict(operators)})",
            )
    max_nodes = MAX_NODES_PER_MODULE * (len(modules) + 4)
    if operators.total() > max_nodes:
        raise ExportError(
            "structure", f"{operators.total()} nodes for {len(modules)} modules, at most {max_nodes} expected"
        )
