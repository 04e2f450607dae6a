"""The PyTorch twin of a Keras model: its graph of layers, built layer by layer with the weights carried over.

A twin takes the model's inputs in their order, with the lengths of a series' rows if rows have lengths of their own,
and gives the model's outputs in their order. A layer that the model calls several times is one module of the twin.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from export.sources.keras.layers.merging import convert_concatenate, convert_merge
from export.sources.keras.layers.registry import CONVERTERS
from export.sources.keras.layers.values import Value, ValueSpec, raise_unsupported

PRECISION = "float32"
MERGING = (convert_merge, convert_concatenate)
NESTED = ("Functional", "Sequential")
RECURRENT = ("SimpleRNN", "LSTM", "GRU", "Bidirectional")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One call of a layer: the positions of its inputs and outputs among all values of the graph."""

    module: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class Twin(nn.Module):
    """The layers of a Keras model and the order in which they are called."""

    def __init__(
        self, layers: Mapping[str, nn.Module], steps: Sequence[Step], outputs: Sequence[int], specs: Sequence[ValueSpec]
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(layers)
        self.steps, self.outputs = tuple(steps), tuple(outputs)
        self.output_specs = tuple(specs)

    def forward(self, *inputs: Value) -> tuple[Value, ...]:
        values = dict(enumerate(inputs))
        for step in self.steps:
            results = self.layers[step.module](*(values[position] for position in step.inputs))
            results = results if isinstance(results, tuple) else (results,)
            values.update(zip(step.outputs, results, strict=True))
        return tuple(values[position] for position in self.outputs)


def run_twin(twin: nn.Module, inputs: Sequence[Tensor], lengths_B: Tensor | None, series: int = 0) -> list[Tensor]:
    """The outputs for these inputs; `lengths_B` are those of the rows of input number `series`, if it has lengths."""
    values = [Value(x=x, lengths=lengths_B if position == series else None) for position, x in enumerate(inputs)]
    return [value.x for value in twin(*values)]


def build_twin(model: Any, *, series: int | None = None) -> Twin:
    """The twin of a loaded model, whose input number `series` has rows with lengths of their own along axis 1.

    Raises ExportError for a layer that has no twin, or cannot have one for such rows.
    """
    specs = [
        ValueSpec(shape=tuple(tensor.shape), has_lengths=position == series)
        for position, tensor in enumerate(model.inputs)
    ]
    return _build(model, specs).eval()


def _build(model: Any, inputs: Sequence[ValueSpec]) -> Twin:
    function = graph_of(model)
    positions = {id(tensor): position for position, tensor in enumerate(function.inputs)}
    specs = list(inputs)
    layers, names, steps = dict[str, nn.Module](), dict[Any, str](), list[Step]()
    for node in calls(function):
        layer = node.operation
        step_inputs = tuple(positions[id(tensor)] for tensor in tensors_of(node))
        step_specs = [specs[position] for position in step_inputs]
        # A call with other lengths or masks than the first needs a module with other rules.
        key = (id(layer), *((spec.has_lengths, spec.mask) for spec in step_specs))
        if key not in names:
            names[key] = _unused_name(layer, layers)
            layers[names[key]] = _convert(layer, step_specs)
        for tensor, spec in zip(node.outputs, _output_specs(layers[names[key]], node, step_specs), strict=True):
            positions[id(tensor)] = len(specs)
            specs.append(spec)
        outputs = tuple(positions[id(tensor)] for tensor in node.outputs)
        steps.append(Step(module=names[key], inputs=step_inputs, outputs=outputs))
    results = [positions[id(tensor)] for tensor in function.outputs]
    return Twin(layers, steps, results, [specs[position] for position in results])


def graph_of(model: Any) -> Any:
    """The graph of layers of a model, whose `inputs` and `outputs` are tensors without values."""
    return getattr(model, "_functional", None) or model


def calls(function: Any) -> list[Any]:
    """The calls of layers that the outputs depend on, in order.

    Keras writes its masks into the graph as operations and arguments of their own. The twin computes masks itself, so
    what leads to nothing but a mask is left out.
    """
    nodes = [
        node
        for depth in sorted(function._nodes_by_depth, reverse=True)
        for node in function._nodes_by_depth[depth]
        if not node.is_input
    ]
    needed, calls = {id(tensor) for tensor in function.outputs}, list[Any]()
    for node in reversed(nodes):
        if needed.intersection(id(tensor) for tensor in node.outputs):
            needed.update(id(tensor) for tensor in tensors_of(node))
            calls.append(node)
    return calls[::-1]


def tensors_of(node: Any) -> list[Any]:
    """The tensors that a call takes: its inputs, then the initial state of a recurrent layer.

    Raises ExportError for a call with other arguments, such as a mask that is not Keras' own.
    """
    layer, args, kwargs = node.operation, node.arguments.args, dict(node.arguments.kwargs)
    if type(layer).__name__ not in (*CONVERTERS, *NESTED) or not type(layer).__module__.startswith("keras."):
        raise_unsupported(layer, "has no twin", f"layers with one are {', '.join(sorted(CONVERTERS))}")
    if kwargs.pop("training", None):
        raise_unsupported(layer, "is called with training=True", "call it without")
    inputs = list(args[0]) if isinstance(args[0], list | tuple) else [args[0]]
    mask = kwargs.pop("mask", None)
    masks = mask if isinstance(mask, list | tuple) else [mask] * len(inputs)
    if any(one is not None and not is_same(one, _mask_of(tensor)) for one, tensor in zip(masks, inputs, strict=False)):
        raise_unsupported(layer, "is called with a mask of your own", "use Masking or Embedding(mask_zero=True)")
    if mask is None and type(layer).__name__ in RECURRENT and _mask_of(inputs[0]) is not None:
        raise_unsupported(
            layer, "is given an initial state, and Keras then ignores the mask of its input", "remove the mask"
        )
    state = kwargs.pop("initial_state", None)
    if state is None and len(args) == 2:
        state = args[1]
    if len(args) > 2 or any(value is not None for value in kwargs.values()):
        raise_unsupported(
            layer, f"is called with further arguments ({', '.join(kwargs) or 'by position'})", "call it without"
        )
    tensors = [*inputs, *(state if isinstance(state, list | tuple) else [] if state is None else [state])]
    if not all(hasattr(tensor, "_keras_history") for tensor in tensors):
        raise_unsupported(layer, "is called with constants or nested inputs", "expected a tensor, or a list of tensors")
    return tensors


def is_same(first: Any, second: Any) -> bool:
    """Whether two arguments of a graph are the same tensor, or the same operations on the same tensors.

    A file holds the operations of a mask, and Keras computes that mask again when it loads the layer that made it.
    """
    if first is second:
        return True
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(is_same, first, second))
    histories = [getattr(one, "_keras_history", None) for one in (first, second)]
    if not all(histories):
        return not any(histories) and type(first) is type(second) and bool(first == second)
    (one, node, output), (other, other_node, other_output) = (tuple(history) for history in histories if history)
    if type(one) is not type(other) or type(one).__name__ in CONVERTERS or output != other_output:
        return False
    nodes = one._inbound_nodes[node], other._inbound_nodes[other_node]
    return _options(one) == _options(other) and is_same(*(_arguments(node) for node in nodes))


def _options(operation: Any) -> dict[str, Any]:
    return {key: value for key, value in operation.get_config().items() if key != "name"}


def _arguments(node: Any) -> list[Any]:
    return [*node.arguments.args, *([key, value] for key, value in sorted(node.arguments.kwargs.items()))]


def _mask_of(tensor: Any) -> Any:
    return getattr(tensor, "_keras_mask", None)


def _convert(layer: Any, specs: Sequence[ValueSpec]) -> nn.Module:
    if type(layer).__name__ in NESTED:
        if any(spec.mask is not None for spec in specs):
            raise_unsupported(
                layer, "is a model inside of the model and is given a mask", "put its layers into the outer model"
            )
        return _build(layer, specs)
    policy = layer.dtype_policy
    if (policy.compute_dtype, policy.variable_dtype) != (PRECISION, PRECISION) or layer.quantization_mode:
        raise_unsupported(
            layer, f"computes in {policy.name}", "convert the model to float32 (keras.config.set_dtype_policy) first"
        )
    is_merge = CONVERTERS[type(layer).__name__] in MERGING
    return CONVERTERS[type(layer).__name__](layer, *(specs if is_merge else specs[:1]))


def _output_specs(module: nn.Module, node: Any, inputs: Sequence[ValueSpec]) -> list[ValueSpec]:
    if isinstance(module, Twin):
        if any(spec.mask is not None for spec in module.output_specs):
            raise_unsupported(
                node.operation, "is a model inside of the model and gives a mask", "put its layers into the outer one"
            )
        return list(module.output_specs)
    has_lengths = any(spec.has_lengths for spec in inputs)
    specs = []
    for tensor in node.outputs:
        shape = tuple(tensor.shape)
        has_steps = has_lengths and len(shape) > 1 and shape[1] is None
        mask = _mask(node.operation, shape, inputs)
        if (mask is None) != (_mask_of(tensor) is None):
            raise_unsupported(
                node.operation, "treats a mask in a way that its twin does not have", "remove the mask before it"
            )
        specs.append(ValueSpec(shape=shape, has_lengths=has_steps, mask=mask))
    return specs


def _mask(layer: Any, shape: tuple[int | None, ...], inputs: Sequence[ValueSpec]) -> str | None:
    """Which layer computed the mask of an output; None if it has none."""
    name = type(layer).__name__
    if name == "Masking" or (name == "Embedding" and layer.mask_zero):
        return str(layer.name)
    is_without_steps = name == "GlobalAveragePooling1D" or (name in RECURRENT and len(shape) < 3)
    return inputs[0].mask if layer.supports_masking and not is_without_steps else None


def _unused_name(layer: Any, layers: Mapping[str, nn.Module]) -> str:
    name = base = str(layer.name).replace(".", "_")
    number = 1
    while name in layers:
        number += 1
        name = f"{base}_call_{number}"
    return name
