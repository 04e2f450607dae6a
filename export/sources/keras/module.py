"""A Keras model as a PyTorch module with named arguments: its twin, or Keras itself behind the same interface.

The adapter of export.sources.module calls both in the same way, so the graph and its reference differ in nothing but
what computes the layers.

Shapes: B batch, T steps, L layers, N hidden size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from export.sources.keras.layers.values import Value
from export.sources.keras.reference import run_keras
from export.sources.keras.states import StatefulLayer
from export.sources.keras.twin import Twin, graph_of

LENGTHS = "lengths"
STATE = ("h", "c")


@dataclass(frozen=True, kw_only=True)
class Interface:
    """The names of a model's inputs and outputs in order; `series` is the position of the input that has lengths.

    With `states`, all other inputs are the parts of h and c, and so are all outputs but the first.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    series: int | None = None
    states: tuple[StatefulLayer, ...] = ()

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the module's arguments."""
        if self.series is None:
            return self.inputs
        names = (self.inputs[0], *STATE) if self.states else self.inputs
        return (names[0], LENGTHS, *names[1:])


class KerasModule(nn.Module):
    """Arguments by name -> outputs by name, or (output, h_LBN, c_LBN) of a stateful model.

    Steps behind the end of a row are zero in every output.
    """

    def __init__(self, interface: Interface) -> None:
        super().__init__()
        self.interface = interface

    def compute(self, inputs: Sequence[Tensor], lengths_B: Tensor | None) -> list[Tensor]:
        """The model's outputs in order for its inputs in order."""
        raise NotImplementedError

    def forward(self, **arguments: Tensor) -> Any:
        interface, lengths_B = self.interface, arguments.get(LENGTHS)
        if not interface.states:
            outputs = self.compute([arguments[name] for name in interface.inputs], lengths_B)
            return dict(zip(interface.outputs, outputs, strict=True))
        inputs = [arguments[interface.inputs[0]]] * len(interface.inputs)
        for number, layer in enumerate(interface.states):
            for name, position in zip(STATE, layer.inputs, strict=True):
                inputs[position] = arguments[name][number]
        outputs = self.compute(inputs, lengths_B)
        h_LBN, c_LBN = (
            torch.stack([outputs[layer.outputs[part]] for layer in interface.states]) for part in range(len(STATE))
        )
        return outputs[0], h_LBN, c_LBN


class TwinModule(KerasModule):
    """The twin, which computes in the dtype of its weights."""

    def __init__(self, twin: Twin, interface: Interface) -> None:
        super().__init__(interface)
        self.twin = twin

    def compute(self, inputs: Sequence[Tensor], lengths_B: Tensor | None) -> list[Tensor]:
        lengths = [lengths_B if position == self.interface.series else None for position in range(len(inputs))]
        values = self.twin(*(Value(x=x, lengths=declared) for x, declared in zip(inputs, lengths, strict=True)))
        return [_without_padding(value) for value in values]


class ReferenceModule(KerasModule):
    """Keras itself, each row alone at its own length, in float32."""

    def __init__(self, model: Any, interface: Interface) -> None:
        super().__init__(interface)
        # In a tuple, because the weights of a Keras model on PyTorch are parameters of a module.
        self.model = (model,)

    def compute(self, inputs: Sequence[Tensor], lengths_B: Tensor | None) -> list[Tensor]:
        lengths = None if lengths_B is None else lengths_B.numpy()
        outputs = run_keras(*self.model, [x.numpy() for x in inputs], lengths, self.interface.series or 0)
        return [torch.from_numpy(array) for array in outputs]


def _without_padding(value: Value) -> Tensor:
    valid_BT = Value(x=value.x, lengths=value.lengths).valid_steps()
    if valid_BT is None:
        return value.x
    return torch.where(valid_BT.reshape(*valid_BT.shape, *[1] * (value.x.dim() - 2)), value.x, 0.0)


def read_interface(model: Any, *, has_series: bool, states: tuple[StatefulLayer, ...]) -> Interface:
    """The interface of a loaded model; with `has_series`, its first input has rows of their own lengths."""
    function = graph_of(model)
    return Interface(
        inputs=_names([tensor.name for tensor in function.inputs]),
        outputs=_names([tensor._keras_history.operation.name for tensor in function.outputs]),
        series=0 if has_series else None,
        states=states,
    )


def _names(names: Sequence[str]) -> tuple[str, ...]:
    """The names, each different: a name that is there before gets its position."""
    return tuple(f"{name}_{position}" if name in names[:position] else name for position, name in enumerate(names))
