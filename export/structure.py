"""Gate 1, structure: declared axes vary, expected operators are there, nothing is unrolled or still training.

An exporter that meets what it cannot express may fix a length or write one node a step, and say nothing: such a graph
is right at the example's size and wrong elsewhere. It is recognised by its shapes and by counting its operators.
"""

from collections import Counter

import onnx
from torch import nn

from export.candidate import Candidate, ExportError
from export.recurrent import OPSET, operator
from service.families import TensorSpec
from service.onnx_wire import check_model
from training.layers import Ragged

NODES_PER_PART = 12  # a bound, twice what any layer needs: attention takes 30 nodes for its five parts


def check_structure(candidate: Candidate) -> dict[str, int]:
    """The graph's operators and how many of each. Raises ExportError."""
    try:
        check_model(candidate.model, opset=OPSET)
        graph = onnx.load_from_string(candidate.model).graph
    except Exception as error:  # protobuf has exceptions of its own
        raise ExportError("structure", f"not a graph that may be served: {error}") from error
    _check_axes("input", candidate.manifest.inputs, list(graph.input))
    _check_axes("output", candidate.manifest.outputs, list(graph.output))
    operators = Counter(node.op_type for node in graph.node)
    _check_operators(candidate, operators)
    for node in graph.node:
        if any(attribute.name == "training_mode" and attribute.i for attribute in node.attribute):
            raise ExportError("structure", f"node {node.name!r} ({node.op_type}) is in training mode")
    _ = candidate.session
    return dict(sorted(operators.items()))


def _check_axes(side: str, specs: tuple[TensorSpec, ...], values: list[onnx.ValueInfoProto]) -> None:
    found = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values
    }
    for spec in specs:
        if spec.name not in found:
            raise ExportError("structure", f"the graph has no {side} {spec.name!r}; it has {sorted(found)}")
        for declared, axis in zip(spec.shape, found[spec.name], strict=False):
            if isinstance(declared, str) and declared != axis:
                raise ExportError(
                    "structure",
                    f"{side} {spec.name!r}: axis {declared!r} is declared dynamic, the graph has {axis!r} "
                    f"(shape {found[spec.name]}, declared {list(spec.shape)})",
                )
        if list(spec.shape) != found[spec.name]:
            raise ExportError(
                "structure", f"{side} {spec.name!r} has shape {found[spec.name]}, declared {list(spec.shape)}"
            )


def _check_operators(candidate: Candidate, operators: Counter[str]) -> None:
    model = candidate.run.model
    served = getattr(model, "generator", model)  # a discriminator is not exported
    parts = list(served.modules())
    expected = Counter("Conv" for part in parts if isinstance(part, nn.Conv1d | nn.Conv2d | nn.Conv3d))
    for part in parts:
        if isinstance(part, Ragged):
            expected[operator(part.rnn)] += part.rnn.num_layers
    for name in ("Conv", "LSTM", "RNN"):
        if operators[name] != expected[name]:
            raise ExportError(
                "structure",
                f"{operators[name]} {name} nodes for {expected[name]} such layers in the model: unrolled or missing "
                f"(operators: {dict(operators)})",
            )
    if "Loop" in operators or "Scan" in operators:
        raise ExportError("structure", f"steps became a loop of nodes (operators: {dict(operators)})")
    bound = NODES_PER_PART * (len(parts) + 4)
    if operators.total() > bound:
        raise ExportError("structure", f"{operators.total()} nodes for {len(parts)} modules, at most {bound} expected")
