"""A trace of the trained module that shares nothing with the translation to ONNX.

torch.export records the module's own operators, before any decomposition, with each recurrent layer as one operator
that has its parameters in PyTorch's order. What an operator computes from constants alone, such as a transposed weight,
is one more constant.
"""

import operator
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from export.errors import ExportError
from export.gates.weights.recorded import record
from export.graph.capture import capture, silence_exporter
from export.graph.recurrent import replace_recurrent_layers
from export.source import Source

# Operators that move elements and compute nothing, and what they do.
MOVES = {
    **dict.fromkeys(("t", "transpose", "permute", "numpy_T", "matrix_H", "mT", "swapaxes"), "transposed"),
    **dict.fromkeys(("slice", "select", "chunk", "split", "split_with_sizes", "unbind", "narrow"), "split"),
    **dict.fromkeys(("cat", "stack", "concat"), "joined"),
    **dict.fromkeys(("view", "reshape", "unsqueeze", "squeeze", "flatten", "unflatten", "expand"), "reshaped"),
    **dict.fromkeys(("to", "clone", "contiguous", "detach", "alias", "lift_fresh_copy", "getitem"), ""),
}


@dataclass(frozen=True, kw_only=True)
class Value:
    """A constant of the trace in float32, with the names of the parameters that it comes from.

    `compute_double` gives it in float64, which is not kept: few constants are needed so, and weights may be large.
    `stored` is the parameter that it was made of, if any.
    """

    single: Any
    compute_double: Callable[[], Any]
    names: tuple[str, ...]
    stored: Any
    change: str

    @property
    def double(self) -> Any:
        """The constant in float64."""
        return self.compute_double()


@dataclass(frozen=True, kw_only=True)
class Trace:
    """`operators` are the nodes that depend on the inputs, in order; `values` holds all nodes that do not.

    `integers` are all whole numbers among the arguments and the sizes, `integer_tensors` the constants that hold whole
    numbers. `computes_sizes` says whether the module's code computes sizes from sizes.
    """

    operators: tuple[fx.Node, ...]
    values: dict[fx.Node, Value]
    integers: frozenset[int]
    integer_tensors: tuple[Tensor, ...]
    computes_sizes: bool


def trace_module(source: Source) -> Trace:
    """Trace the module that is exported for this run. Raises ExportError."""
    program = _export(source)
    values, operators, integers, computes_sizes = dict(_stored_values(program)), [], set[int](), False
    for node in program.graph.nodes:
        if node.op == "call_function" and isinstance(node.target, torch._ops.HigherOrderOperator):
            raise ExportError(
                "weights",
                f"the module uses {node.target}, whose body cannot be accounted for; "
                "compute both branches and choose with torch.where, or leave out the context",
            )
        if node.op == "call_function" and (node.users or is_in_place(node)):
            integers |= set(_integers((node.args, node.kwargs, _shape(node))))
            if _is_constant(node, values):
                values[node] = _evaluate(node, values)
            elif isinstance(node.target, torch._ops.OpOverload):
                operators.append(node)
            elif node.target is not operator.getitem:
                computes_sizes = True
    integers |= {size for value in values.values() for size in getattr(value.single, "shape", ())}
    tensors = (value.single for value in values.values() if isinstance(value.single, Tensor))
    return Trace(
        operators=tuple(operators),
        values=values,
        integers=frozenset(integers),
        integer_tensors=tuple(tensor for tensor in tensors if not tensor.is_floating_point()),
        computes_sizes=computes_sizes,
    )


def operator_name(node: fx.Node) -> str:
    """Such as `conv2d`, without the overload."""
    target = getattr(node.target, "overloadpacket", node.target)
    name = str(getattr(target, "__name__", target))
    # An operator in place is the operator; the graph has no other.
    return name if name.startswith("_") else name.removesuffix("_")


def typed_arguments(node: fx.Node) -> list[tuple[str, str, Any]]:
    """Name, type and value of each argument, the defaults included."""
    assert isinstance(node.target, torch._ops.OpOverload)
    return [
        (
            argument.name,
            str(argument.type),
            node.args[i] if i < len(node.args) else node.kwargs.get(argument.name, argument.default_value),
        )
        for i, argument in enumerate(node.target._schema.arguments)
    ]


def arguments_of(node: fx.Node) -> dict[str, Any]:
    """The arguments by name, the defaults included."""
    return {name: value for name, _, value in typed_arguments(node)}


def _export(source: Source) -> ExportedProgram:
    module = source.module
    assert module is not None, "a source without a module has no trace"
    with replace_recurrent_layers(module, record), torch.no_grad(), silence_exporter():
        return capture(source, module, gate="weights")


def _stored_values(program: ExportedProgram) -> Iterator[tuple[fx.Node, Value]]:
    """The parameters, buffers and lifted constants, by placeholder."""
    placeholders = [node for node in program.graph.nodes if node.op == "placeholder"]
    tensors = {**program.constants, **program.state_dict}
    prefix = wrapper_prefix(program.state_dict)
    # An operator in place would change the module itself.
    is_written = any(is_in_place(node) for node in program.graph.nodes)
    for node, spec in zip(placeholders, program.graph_signature.input_specs, strict=True):
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
            tensor = tensors[str(spec.target)].detach()
            tensor = tensor.clone() if is_written else tensor
            names = () if spec.kind is InputKind.CONSTANT_TENSOR else (str(spec.target).removeprefix(prefix),)
            yield (
                node,
                Value(single=tensor, compute_double=partial(_double, tensor), names=names, stored=tensor, change=""),
            )


def wrapper_prefix(names: Iterable[str]) -> str:
    """The name of the module around the one that the user knows; "" if there is none."""
    return "model." if all(name.startswith("model.") for name in names) else ""


def is_in_place(node: fx.Node) -> bool:
    """Whether an operator writes to one of its arguments."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _is_constant(node: fx.Node, values: dict[fx.Node, Value]) -> bool:
    is_random = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
    return not is_random and all(operand in values for operand in node.all_input_nodes)


def _evaluate(node: fx.Node, values: dict[fx.Node, Value]) -> Value:
    operands = [values[operand] for operand in node.all_input_nodes]
    names = tuple(dict.fromkeys(name for operand in operands for name in operand.names))
    changes = [operand.change for operand in operands if operand.change]
    change = MOVES.get(operator_name(node), "folded")
    return Value(
        single=_call(node, {operand: values[operand].single for operand in node.all_input_nodes}),
        compute_double=lambda: _call(node, {operand: values[operand].double for operand in node.all_input_nodes}),
        names=names,
        stored=operands[0].stored if operands else None,
        change="folded" if "folded" in (change, *changes) else change or (changes[0] if changes else ""),
    )


def _call(node: fx.Node, operands: dict[fx.Node, Any]) -> Any:
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), operands.__getitem__)
    assert callable(node.target)
    with torch.no_grad():
        return node.target(*args, **kwargs)


def _shape(node: fx.Node) -> list[int]:
    shape = getattr(node.meta.get("val"), "shape", ())
    return [size for size in shape if isinstance(size, int)]


def _integers(value: Any) -> Iterator[int]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for one in value:
            yield from _integers(one)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield value
