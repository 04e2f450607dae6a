"""The float constants that the trained module uses, in the order in which its operators use them.

The order within an operator is that of the inputs of its ONNX equivalent, and then of its attributes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor, fx

from export.gates.weights.constant import Array, SourceConstant
from export.gates.weights.folding import FOLDABLE, fold
from export.gates.weights.known import KNOWN
from export.gates.weights.trace import (
    Trace,
    Value,
    arguments_of,
    operator_name,
    trace_module,
    typed_arguments,
    wrapper_prefix,
)
from export.gates.weights.translation import Number, Translation, signature_of, translate_alone
from export.source import Source

Values = dict[fx.Node, Value]

# ONNX normalises with a scale and an offset; the exporter writes them if the module has none.
NORMS = ("layer_norm", "batch_norm")
# Numbers that follow from the name of an operator.
IMPLIED = {
    **dict.fromkeys(("ones", "ones_like", "new_ones"), (1.0,)),
    **dict.fromkeys(("zeros", "zeros_like", "new_zeros"), (0.0,)),
}
# The types of arguments whose numbers take part in the computation; sizes and axes have other types.
NUMBERS = ("Tensor", "number", "float", "Optional[Tensor]", "Optional[number]", "Optional[float]")
# What another library's rounding may change in a computed constant, relative to its largest element.
MAX_ROUNDING = 2.0**-22


@dataclass(frozen=True, kw_only=True)
class Operator:
    """One operator of the module: its name, such as `conv2d`, and its arguments by name, the defaults included.

    `translation` is what it becomes by itself, for an operator that is not in KNOWN.
    """

    name: str
    arguments: dict[str, Any]
    translation: Translation | None = None


@dataclass(frozen=True, kw_only=True)
class Folding:
    """A layer whose normalisation the exporter may fold: the constants if it did not, and if it did."""

    separate: tuple[SourceConstant, ...]
    folded: tuple[SourceConstant, ...]


@dataclass(frozen=True, kw_only=True)
class TracedModule:
    """The constants of a module in order of use, its operators, and every whole number that its trace names.

    `integer_tensors` are its constants of whole numbers, such as positions. `unused` names the exported parameters and
    buffers that no operator uses. `computes_sizes` says whether the module
    computes sizes from sizes, for which it needs operators that are not listed.
    """

    constants: tuple[SourceConstant | Folding, ...]
    operators: tuple[Operator, ...]
    integers: frozenset[int]
    integer_tensors: tuple[Array, ...]
    unused: tuple[str, ...]
    computes_sizes: bool

    @property
    def all_constants(self) -> list[SourceConstant]:
        """The constants, whether or not a normalisation was folded."""
        return [
            one
            for entry in self.constants
            for one in ((*entry.separate, *entry.folded) if isinstance(entry, Folding) else (entry,))
        ]


def read_source(source: Source) -> TracedModule:
    """The constants of the module that is exported for this run. Raises ExportError if it cannot be traced."""
    trace = trace_module(source)
    constants: list[SourceConstant | Folding] = []
    folded_norms: set[fx.Node] = set()
    translations = _translate(trace)
    for node in trace.operators:
        norm = _foldable_norm(node, trace.values)
        if norm is not None:
            folded_norms.add(norm)
            separate = (*_constants(node, trace.values), *_constants(norm, trace.values))
            constants.append(Folding(separate=separate, folded=tuple(_folded(node, norm, trace.values))))
        elif node in translations:
            constants += _translated(node, trace.values, translations[node])
        elif node not in folded_norms:
            constants += _constants(node, trace.values)
    traced = TracedModule(
        constants=tuple(constants),
        operators=tuple(
            Operator(name=operator_name(node), arguments=arguments_of(node), translation=translations.get(node))
            for node in trace.operators
        ),
        integers=trace.integers.union(*(one.integers for one in translations.values())),
        integer_tensors=tuple(_array(tensor) for tensor in trace.integer_tensors),
        unused=(),
        computes_sizes=trace.computes_sizes,
    )
    used = {name for constant in traced.all_constants for name in constant.names}
    return replace(traced, unused=tuple(_unused(source, used)))


def _translate(trace: Trace) -> dict[fx.Node, Translation]:
    """The operators that are translated by themselves: all that are not known for real numbers, each kind once."""
    by_signature: dict[str, Translation] = {}
    translations: dict[fx.Node, Translation] = {}
    for node in trace.operators:
        if operator_name(node) not in KNOWN or any(map(_is_complex, node.all_input_nodes)):
            signature = signature_of(node, trace.values)
            if signature not in by_signature:
                by_signature[signature] = translate_alone(node, trace.values)
            translations[node] = by_signature[signature]
    return translations


def _is_complex(operand: fx.Node) -> bool:
    """Whether an operand holds complex numbers, for which an operator becomes other nodes than those of KNOWN."""
    value = operand.meta.get("val")
    return isinstance(value, Tensor) and value.is_complex()


def _translated(node: fx.Node, values: Values, translation: Translation) -> Iterator[SourceConstant]:
    """The constants in the order of the operator's own translation: its operands, and the numbers between them."""
    for found in translation.floats:
        if isinstance(found, Number):
            yield SourceConstant(names=(), value=found.value, stored=found.value)
            continue
        for operand in _tensor(values[node.all_input_nodes[found.operand]], is_transposed=False):
            rearranged = operand.value.ravel()[found.order]
            exact = None if operand.exact is None else operand.exact.ravel()[found.order]
            yield replace(operand, value=rearranged, exact=exact)


def _constants(node: fx.Node, values: Values) -> Iterator[SourceConstant]:
    name, arguments = operator_name(node), typed_arguments(node)
    yield from map(_literal, IMPLIED.get(name, ()))
    if name == "addmm":
        # The bias comes first in PyTorch and last in ONNX.
        arguments = [*arguments[1:], arguments[0]]
    for argument, kind, value in arguments:
        for element in value if isinstance(value, list | tuple) else (value,):
            if isinstance(element, fx.Node) and element in values:
                yield from _tensor(values[element], is_transposed=(name, argument) == ("linear", "weight"))
            elif isinstance(element, int | float) and not isinstance(element, bool):
                if kind in NUMBERS and (argument, element) != ("alpha", 1):
                    yield _literal(element)
            elif element is None and name in NORMS and argument in ("weight", "bias"):
                yield _literal(float(argument == "weight"))


def _tensor(value: Value, *, is_transposed: bool) -> Iterator[SourceConstant]:
    """The float tensor as a constant; a linear weight as [in, out], as both ONNX and `x @ weight.T` use it."""
    if not isinstance(value.single, Tensor) or not value.single.is_floating_point():
        return
    is_computed = value.change == "folded"
    single, double = (
        None if tensor is None else _array(tensor).T if is_transposed else _array(tensor)
        for tensor in (value.single, value.double if is_computed else None)
    )
    assert single is not None
    yield SourceConstant(
        names=value.names,
        value=single,
        stored=single if value.stored is None else _array(value.stored),
        change=value.change,
        exact=double,
        max_rounding=MAX_ROUNDING if is_computed else 0.0,
    )


def _literal(value: float) -> SourceConstant:
    array = np.array(value, np.float64)
    return SourceConstant(names=(), value=array, stored=array)


def _foldable_norm(node: fx.Node, values: Values) -> fx.Node | None:
    """The BatchNorm in eval mode that normalises the output of this layer; None if anything else reads that output."""
    user = next(iter(node.users))
    if operator_name(node) not in FOLDABLE or len(node.users) > 1 or operator_name(user) != "batch_norm":
        return None
    constants = (*node.all_input_nodes[1:], *user.all_input_nodes[1:])
    is_constant = user.args[0] is node and all(operand in values for operand in constants)
    return user if is_constant and not arguments_of(user)["training"] else None


def _folded(node: fx.Node, norm: fx.Node, values: Values) -> Iterator[SourceConstant]:
    """Weight and bias of the layer with its BatchNorm folded into them."""
    operands = [*node.all_input_nodes, *norm.all_input_nodes]
    names = tuple(name for operand in operands if operand in values for name in values[operand].names)
    single, double = (
        fold(operator_name(node), _arrays(node, values, kind), _arrays(norm, values, kind))
        for kind in ("single", "double")
    )
    stored = _arrays(node, values, "single")["weight"]
    for array, exact in zip(single, double, strict=True):
        yield SourceConstant(names=names, value=array, stored=stored, change="folded", exact=exact)


def _arrays(node: fx.Node, values: Values, kind: str) -> dict[str, Any]:
    """The arguments by name, with constant tensors as arrays."""
    return {
        name: _array(_tensor_of(values[value], kind)) if isinstance(value, fx.Node) and value in values else value
        for name, value in arguments_of(node).items()
    }


def _tensor_of(value: Value, kind: str) -> Tensor:
    tensor: Tensor = value.single if kind == "single" else value.double
    return tensor


def _unused(source: Source, used: set[str]) -> Iterator[str]:
    """The exported float parameters and buffers that are not among the used ones, under any name that they share.

    A buffer that no file of weights holds is not trained, and need not be used.
    """
    assert source.module is not None
    stored = source.module.state_dict().keys()
    prefix = wrapper_prefix(stored)
    tensors = [
        (name.removeprefix(prefix), tensor)
        for tensors in (source.module.named_parameters, source.module.named_buffers)
        for name, tensor in tensors(remove_duplicate=False)
        if name in stored
    ]
    shared = {id(tensor) for name, tensor in tensors if name in used}
    for name, tensor in tensors:
        if tensor.is_floating_point() and id(tensor) not in shared:
            yield name


def _array(tensor: Tensor) -> Array:
    array: Array = tensor.detach().numpy()
    return array
