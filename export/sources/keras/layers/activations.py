"""The activations of Keras, by their names in `keras.activations`, as functions of PyTorch.

Two are missing: `threshold` needs arguments, and Keras 3.15 computes `sparsemax` otherwise than its definition.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from export.sources.keras.layers.values import Function, ValueSpec, per_step, raise_unsupported, weight

Activation = Callable[[Tensor], Tensor]
MODULE = "keras.src.activations.activations"


def _sparse_plus(x: Tensor) -> Tensor:
    return torch.where(x <= -1, 0.0, torch.where(x < 1, 0.25 * (x + 1) ** 2, x))


ACTIVATIONS: dict[str, Activation] = {
    "linear": lambda x: x,
    "relu": torch.relu,
    "relu6": nnf.relu6,
    "leaky_relu": lambda x: nnf.leaky_relu(x, 0.2),
    "elu": nnf.elu,
    "selu": nnf.selu,
    "celu": nnf.celu,
    "gelu": nnf.gelu,
    "glu": nnf.glu,
    "silu": nnf.silu,
    "mish": nnf.mish,
    "tanh": torch.tanh,
    "hard_tanh": nnf.hardtanh,
    "tanh_shrink": nnf.tanhshrink,
    "sigmoid": torch.sigmoid,
    "hard_sigmoid": nnf.hardsigmoid,
    "hard_silu": nnf.hardswish,
    "log_sigmoid": nnf.logsigmoid,
    "sparse_sigmoid": lambda x: (0.5 * (x + 1)).clamp(0, 1),
    "softmax": lambda x: x.softmax(-1),
    "log_softmax": lambda x: x.log_softmax(-1),
    "softplus": nnf.softplus,
    "softsign": nnf.softsign,
    "squareplus": lambda x: (x + torch.sqrt(x**2 + 4)) / 2,
    "sparse_plus": _sparse_plus,
    "soft_shrink": nnf.softshrink,
    "hard_shrink": nnf.hardshrink,
    "exponential": torch.exp,
}


def activation_name(function: Any) -> str | None:
    """The name of a function of `keras.activations`; None for any other."""
    name = getattr(function, "__name__", None)
    return name if getattr(function, "__module__", None) == MODULE and name in ACTIVATIONS else None


def activation(layer: Any) -> Activation | None:
    """The activation of a Keras layer; None if it has none, or the linear one. Raises ExportError for any other."""
    if layer.activation is None:
        return None
    name = activation_name(layer.activation)
    if name is None:
        given = getattr(layer.activation, "__name__", type(layer.activation).__name__)
        raise_unsupported(layer, f"has the activation {given!r}", f"expected one of {', '.join(ACTIVATIONS)}")
    return None if name == "linear" else ACTIVATIONS[name]


def convert_activation(layer: Any, _: ValueSpec) -> nn.Module:
    """keras.layers.Activation."""
    return per_step(layer, Function(activation(layer) or ACTIVATIONS["linear"]))


class Relu(nn.Module):
    """keras.layers.ReLU: x above the threshold, `slope * (x - threshold)` below it, at most `max_value`."""

    def __init__(self, *, slope: float, threshold: float, max_value: float | None) -> None:
        super().__init__()
        self.slope, self.threshold, self.max_value = slope, threshold, max_value

    def forward(self, x: Tensor) -> Tensor:
        if self.threshold:
            is_below = self.slope * (x - self.threshold)
            y = torch.where(x > self.threshold, x, is_below)
        else:
            y = nnf.leaky_relu(x, self.slope) if self.slope else torch.relu(x)
        return y if self.max_value is None else y.clamp(max=self.max_value)


class PRelu(nn.Module):
    """keras.layers.PReLU; `alpha` has one axis less than x, of size 1 where it is shared."""

    def __init__(self, alpha: nn.Parameter) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x) - self.alpha * torch.relu(-x)


def convert_relu(layer: Any, _: ValueSpec) -> nn.Module:
    """keras.layers.ReLU."""
    slope, threshold, maximum = float(layer.negative_slope), float(layer.threshold), layer.max_value
    module = Relu(slope=slope, threshold=threshold, max_value=None if maximum is None else float(maximum))
    return per_step(layer, module)


def convert_leaky_relu(layer: Any, _: ValueSpec) -> nn.Module:
    """keras.layers.LeakyReLU."""
    return per_step(layer, nn.LeakyReLU(float(layer.negative_slope)))


def convert_elu(layer: Any, _: ValueSpec) -> nn.Module:
    """keras.layers.ELU."""
    return per_step(layer, nn.ELU(float(layer.alpha)))


def convert_prelu(layer: Any, _: ValueSpec) -> nn.Module:
    """keras.layers.PReLU; Keras admits free axes only where the slopes are shared."""
    return per_step(layer, PRelu(weight(layer.alpha)))


def convert_softmax(layer: Any, spec: ValueSpec) -> nn.Module:
    """keras.layers.Softmax along one axis."""
    axes = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
    if len(axes) != 1:
        raise_unsupported(layer, f"normalises over the axes {list(axes)}", "expected one axis")
    if spec.mask is not None:
        raise_unsupported(
            layer, f"is given the mask of layer {spec.mask!r}", "use Dense(..., activation='softmax') instead"
        )
    axis = axes[0] % len(spec.shape)
    if axis == 1 and spec.has_lengths:
        raise_unsupported(layer, "normalises over steps of a free number", "give the Input a fixed number of steps")
    return per_step(layer, nn.Softmax(axis))
