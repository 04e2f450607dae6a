"""First specs of graphs: an ONNX file, or a program of torch.export. Every tensor is taken as it is."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch

from export.inspection.first_spec import Seen, axis_table, table, tensor_tables
from export.sources.module.factory import read_pt2
from export.sources.onnx_file.columns import draft_table

Tensor = tuple[str, str, list[int | str]]
# What is proposed for the bounds of a free axis.
BOUNDS = (1, 512)


def inspect_onnx(path: Path) -> Seen:
    """Inputs, outputs, opsets and operators of an ONNX graph. Raises ValueError for a file that holds none."""
    try:
        model = onnx.load(path, load_external_data=False)
    # protobuf raises exceptions of its own.
    except Exception as error:
        raise ValueError(f"no ONNX graph: {error}") from error
    graph = model.graph
    weights = {weight.name for weight in graph.initializer}
    inputs = [_value(value) for value in graph.input if value.name not in weights]
    outputs = [_value(value) for value in graph.output]
    opsets = ", ".join(f"{entry.domain or 'ai.onnx'} {entry.version}" for entry in model.opset_import)
    operators = sorted({node.op_type for node in graph.node})
    if all(axes == ["batch", 1] for _, _, axes in inputs):
        drafted = draft_table(graph, {name: dtype for name, dtype, _ in inputs})
    else:
        drafted = None
    lines = (f"{path}: ONNX, opset {opsets}, {len(graph.node)} nodes: {', '.join(operators)}", *_lines(inputs, outputs))
    return Seen(lines=lines, spec=_spec(inputs, outputs) if drafted is None else _table_spec(drafted))


def inspect_pt2(path: Path) -> Seen:
    """Inputs and outputs of a program of torch.export. Raises ValueError for another file."""
    read_pt2(path)
    program = torch.export.load(path)
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    names: dict[str, str] = {}
    inputs = [_traced(name, values[name], names) for name in program.graph_signature.user_inputs if name in values]
    outputs = [
        (f"output_{i}", *_traced(str(name), values[name], names)[1:])
        for i, name in enumerate(program.graph_signature.user_outputs)
        if name in values
    ]
    lines = (f"{path}: torch.export, {len(program.state_dict)} weights", *_lines(inputs, outputs))
    return Seen(lines=lines, spec=_spec(inputs, outputs))


def _value(value: onnx.ValueInfoProto) -> Tensor:
    tensor = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_string(tensor.elem_type).removeprefix("TensorProto.").lower()
    dtype = {"float": "float32", "double": "float64"}.get(dtype, dtype)
    axes = [dim.dim_value or dim.dim_param or f"{value.name}_{i}" for i, dim in enumerate(tensor.shape.dim)]
    return value.name, dtype, _with_batch(axes)


def _traced(name: str, value: torch.Tensor, names: dict[str, str]) -> Tensor:
    axes: list[int | str] = []
    for position, size in enumerate(value.shape):
        if isinstance(size, int):
            axes.append(size)
        else:
            axes.append(names.setdefault(str(size), "batch" if position == 0 else f"axis_{len(names)}"))
    return name, str(value.dtype).removeprefix("torch."), axes


def _with_batch(axes: Sequence[int | str]) -> list[int | str]:
    """The first free axis in front is the batch, whatever its name."""
    return ["batch" if i == 0 and isinstance(axis, str) else axis for i, axis in enumerate(axes)]


def _lines(inputs: Iterable[Tensor], outputs: Iterable[Tensor]) -> list[str]:
    named = [("in", tensor) for tensor in inputs] + [("out", tensor) for tensor in outputs]
    return [f"  {side:3} {name} {dtype} {axes}" for side, (name, dtype, axes) in named]


def _table_spec(drafted: dict[str, Any]) -> str:
    text = table("reader", {"kind": "table"})
    for column in drafted["reader"]["columns"]:
        text += table("[reader.columns]", column)
    return text + "\n" + table("head", drafted["head"])


def _spec(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> str:
    free = {axis: BOUNDS for _, _, axes in (*inputs, *outputs) for axis in axes if isinstance(axis, str)}
    free.pop("batch", None)
    return (
        table("reader", {"kind": "tensors"})
        + tensor_tables("reader.inputs", inputs)
        + "\n"
        + table("head", {"kind": "tensors"})
        + tensor_tables("head.outputs", outputs)
        + axis_table(free, is_guess=True)
    )
