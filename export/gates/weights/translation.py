"""One operator of the module, translated to ONNX by itself: the nodes that it becomes, and the numbers that they read.

The gate knows by heart what common operators become. For all others, it translates the operator alone, with the same
arguments and axes as in the module, and reads the result. So a graph is held against the sum of its operators, whatever
these are; nothing that the translation of the whole module added can hide in it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.export import Dim

from export.errors import ExportError
from export.gates.weights.constant import Array
from export.gates.weights.graph import read_constants
from export.gates.weights.trace import Value, operator_name
from export.graph.capture import positional, silence_exporter
from export.graph.exporter import translate

# The elements of float operands are numbered from here, so that none is a number of the translation; float32 holds all
# whole numbers up to 2^24.
FIRST_NUMBER, MAX_NUMBER = 1 << 20, 1 << 24
Values = Mapping[fx.Node, Value]


@dataclass(frozen=True, kw_only=True)
class Number:
    """A float constant of a translation that is no operand, such as an epsilon."""

    value: Array


@dataclass(frozen=True, kw_only=True)
class Rearranged:
    """An operand of the operator, by its position among the node's operands, with the elements in this order."""

    operand: int
    order: Array


@dataclass(frozen=True, kw_only=True)
class Translation:
    """The types of the nodes that an operator becomes, its float constants in order, and its whole numbers."""

    nodes: tuple[str, ...]
    floats: tuple[Number | Rearranged, ...]
    integers: frozenset[int]


class Alone(nn.Module):
    """A module of one operator. Its constant operands are buffers; sizes are those of inputs.

    In the place of weights stand the numbers of their elements, which show where the translation moves each of them.
    """

    def __init__(self, node: fx.Node, values: Values) -> None:
        super().__init__()
        self.node = node
        self.variable = [operand for operand in node.all_input_nodes if operand not in values]
        self.constant: dict[fx.Node, Any] = {}
        self.numbers: dict[int, range] = {}
        first = FIRST_NUMBER
        for position, operand in enumerate(node.all_input_nodes):
            if operand in values:
                constant = values[operand].single
                if isinstance(constant, Tensor) and constant.is_floating_point():
                    self.numbers[position] = range(first, first + constant.numel())
                    first += constant.numel()
                    constant = torch.tensor(self.numbers[position], dtype=constant.dtype).reshape(constant.shape)
                self.constant[operand] = constant
                if isinstance(constant, Tensor):
                    self.register_buffer(f"operand_{position}", constant)
        if first > MAX_NUMBER:
            raise ValueError(f"its weights have {first - FIRST_NUMBER} elements, more than float32 can number")

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        operands = dict(self.constant)
        for operand, tensor in zip(self.variable, inputs, strict=True):
            operands[operand] = tensor if isinstance(operand.meta["val"], Tensor) else tensor.shape[0]
        args, kwargs = fx.node.map_arg((self.node.args, self.node.kwargs), operands.__getitem__)
        assert callable(self.node.target)
        result = self.node.target(*args, **kwargs)
        results = result if isinstance(result, list | tuple) else (result,)
        return tuple(one for one in results if isinstance(one, Tensor))


def translate_alone(node: fx.Node, values: Values) -> Translation:
    """The nodes and constants that this operator becomes. Raises ExportError if that cannot be told."""
    try:
        module = Alone(node, values)
        examples, axes = zip(*map(_example, module.variable), strict=True)
        with torch.no_grad(), silence_exporter():
            dynamic = positional(module, [dict.fromkeys(free, Dim.DYNAMIC) for free in axes])
            captured = torch.export.export(module.eval(), examples, dynamic_shapes=dynamic, strict=False)
            inputs = [f"input_{i}" for i in range(len(examples))]
            graph = translate(captured, inputs=inputs, outputs=None, axes=None).model_proto.graph
        constants = read_constants(graph)
        return Translation(
            nodes=tuple(one.op_type for one in graph.node),
            floats=tuple(_identify(one.value, module.numbers) for one in constants.floats),
            integers=frozenset(int(value) for array in constants.integers.values() for value in array.ravel()),
        )
    # torch.export has no base class for its errors.
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ExportError(
            "weights",
            f"the operator {operator_name(node)!r} of the module cannot be translated by itself, so its nodes cannot "
            f"be accounted for; write it with other operators of PyTorch: {reason}",
        ) from error


def _identify(array: Array, numbers: Mapping[int, range]) -> Number | Rearranged:
    for operand, elements in numbers.items():
        if array.size and elements.start <= array.min() and array.max() < elements.stop:
            return Rearranged(operand=operand, order=(array - elements.start).astype(np.int64))
    if array.size and np.abs(array[np.isfinite(array)]).max(initial=0) >= FIRST_NUMBER and array.size > 1:
        raise ValueError("its translation computes with its weights")
    return Number(value=array)


def _example(operand: fx.Node) -> tuple[Tensor, list[int]]:
    """A tensor of the operand's type and example size, and its free axes. A size becomes the axis of a tensor."""
    value = operand.meta["val"]
    if not isinstance(value, Tensor):
        return torch.zeros(_size(value)), [0] if _size(value) > 1 else []
    shape = [_size(size) for size in value.shape]
    free = [i for i, size in enumerate(value.shape) if not isinstance(size, int) and shape[i] > 1]
    return torch.zeros(shape, dtype=value.dtype), free


def _size(size: Any) -> int:
    return size if isinstance(size, int) else int(size.node.hint)


def signature_of(node: fx.Node, values: Values) -> str:
    """The same for two operators that become the same nodes with the same numbers."""

    def describe(operand: fx.Node) -> Any:
        value = operand.meta.get("val")
        kind = "constant" if operand in values else "variable"
        return (kind, str(value.dtype), str(tuple(value.shape))) if isinstance(value, Tensor) else (kind, str(value))

    args, kwargs = fx.node.map_arg((node.args, node.kwargs), describe)
    return f"{node.target} {args} {kwargs}"
