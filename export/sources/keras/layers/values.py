"""What passes between the layers of a twin, and the reading of a Keras layer's weights.

A Keras model computes each row alone, at the row's own length. The twin computes rows of different lengths together, so
every value carries the lengths of its rows beside the mask that Keras computes. What stands beyond a row's length is
arbitrary: no layer may let it reach a valid step.

Shapes: B batch, T steps, C channels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from export.errors import ExportError

STAGE = "keras"


@dataclass(frozen=True, kw_only=True)
class Value:
    """A tensor between two layers.

    `lengths` int64 [B] says how many steps of axis 1 each row has; None, if all rows have all steps. `mask` bool [B, T]
    is Keras' mask, true at the steps that count; None, if Keras computes none.
    """

    x: Tensor
    lengths: Tensor | None = None
    mask: Tensor | None = None

    def valid_steps(self) -> Tensor | None:
        """True at the steps that a row has and that the mask admits; None, if these are all steps."""
        if self.lengths is None:
            return self.mask
        steps_T = torch.arange(self.x.shape[1], device=self.x.device)
        valid_BT = steps_T < self.lengths[:, None]
        return valid_BT if self.mask is None else valid_BT & self.mask


@dataclass(frozen=True, kw_only=True)
class ValueSpec:
    """What is known of a value before it is computed.

    `shape` is Keras' shape with the batch axis; a free axis is None. `has_lengths` says whether its rows have lengths
    of their own along axis 1, `mask` which layer computed its mask.
    """

    shape: tuple[int | None, ...]
    has_lengths: bool = False
    mask: str | None = None


class PerStep(nn.Module):
    """Applies a module that treats all steps alike; the mask stays if Keras' layer keeps it."""

    def __init__(self, module: nn.Module, *, keeps_mask: bool) -> None:
        super().__init__()
        self.module, self.keeps_mask = module, keeps_mask

    def forward(self, value: Value) -> Value:
        return Value(x=self.module(value.x), lengths=value.lengths, mask=value.mask if self.keeps_mask else None)


class Function(nn.Module):
    """A function of one tensor as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def per_step(layer: Any, module: nn.Module) -> PerStep:
    """The module for a Keras layer that treats all steps alike."""
    return PerStep(module, keeps_mask=bool(layer.supports_masking))


def whole(layer: Any, spec: ValueSpec, module: nn.Module) -> PerStep:
    """The module for a layer that mixes steps, or moves them. Raises ExportError if rows have lengths of their own."""
    if spec.has_lengths:
        raise_unsupported(
            layer,
            "mixes the steps of a series of free length, whose rows are padded when they are served together",
            "give the Input a fixed number of steps",
        )
    return per_step(layer, module)


def raise_unsupported(layer: Any, fault: str, remedy: str) -> NoReturn:
    """Raises ExportError that names the layer, what is wrong with it and the way out."""
    raise ExportError(STAGE, f"layer {layer.name!r} ({type(layer).__name__}) {fault}; {remedy}")


def weight(variable: Any) -> nn.Parameter:
    """A Keras variable as a parameter of its own, on the CPU."""
    return nn.Parameter(torch.from_numpy(variable.numpy().copy()), requires_grad=False)


def optional_weight(variable: Any) -> nn.Parameter | None:
    """As `weight`; None if the layer has no such variable."""
    return None if variable is None else weight(variable)


def bias(layer: Any) -> nn.Parameter | None:
    """The bias of a layer; None if it has none, or only zeros, which a graph does not hold."""
    value = optional_weight(layer.bias) if layer.use_bias else None
    return None if value is None or not value.any() else value


def axis_from_end(axis: int, spec: ValueSpec) -> int:
    """The axis as a negative number."""
    return axis if axis < 0 else axis - len(spec.shape)
