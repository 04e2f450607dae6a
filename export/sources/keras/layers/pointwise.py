"""Layers that treat every step, or every pixel, alike: dense layers, embeddings, scales, and those that only train."""

from typing import Any

import torch
from torch import Tensor, nn

from export.sources.keras.layers.activations import Activation, activation
from export.sources.keras.layers.values import Value, ValueSpec, bias, per_step, raise_unsupported, weight


class Dense(nn.Module):
    """A linear layer over the last axis, and its activation."""

    def __init__(self, kernel: nn.Parameter, bias: nn.Parameter | None, function: Activation | None) -> None:
        super().__init__()
        inputs, units = kernel.shape
        self.linear = nn.Linear(inputs, units, bias=bias is not None)
        self.linear.weight = nn.Parameter(kernel.T.contiguous(), requires_grad=False)
        if bias is not None:
            self.linear.bias = bias
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x.to(self.linear.weight.dtype))
        return y if self.function is None else self.function(y)


class Scale(nn.Module):
    """`x * scale + offset`, without an offset of zeros, which a graph does not hold."""

    scale: Tensor
    offset: Tensor | None

    def __init__(self, scale: Tensor, offset: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("offset", offset if offset.any() else None)

    def forward(self, x: Tensor) -> Tensor:
        y = x.to(self.scale.dtype) * self.scale
        return y if self.offset is None else y + self.offset


class Normalize(nn.Module):
    """`(x - mean) / std`, or its inverse."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor, *, is_inverse: bool) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.is_inverse = is_inverse

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.mean.dtype)
        return x * self.std + self.mean if self.is_inverse else (x - self.mean) / self.std


class Embedding(nn.Module):
    """ids int [...] -> [..., size]; with `masks_zero`, the mask is false at id 0."""

    def __init__(self, table: nn.Parameter, *, masks_zero: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(*table.shape)
        self.embedding.weight = table
        self.masks_zero = masks_zero

    def forward(self, value: Value) -> Value:
        ids = value.x.long()
        return Value(x=self.embedding(ids), lengths=value.lengths, mask=ids != 0 if self.masks_zero else None)


class Masking(nn.Module):
    """The mask is false at steps whose channels all have the mask's value, and these steps become zero."""

    def __init__(self, mask_value: float) -> None:
        super().__init__()
        self.mask_value = mask_value

    def forward(self, value: Value) -> Value:
        mask_BT = (value.x != self.mask_value).any(-1)
        return Value(x=torch.where(mask_BT[..., None], value.x, 0.0), lengths=value.lengths, mask=mask_BT)


def convert_identity(layer: Any, _: ValueSpec) -> nn.Module:
    """Layers that change nothing outside of training."""
    return per_step(layer, nn.Identity())


def convert_dense(layer: Any, _: ValueSpec) -> nn.Module:
    """keras.layers.Dense."""
    return per_step(layer, Dense(weight(layer.kernel), bias(layer), activation(layer)))


def convert_rescaling(layer: Any, _: ValueSpec) -> nn.Module:
    """keras.layers.Rescaling."""
    return per_step(layer, Scale(_constant(layer.scale), _constant(layer.offset)))


def convert_normalization(layer: Any, _: ValueSpec) -> nn.Module:
    """keras.layers.Normalization, adapted or with given mean and variance."""
    mean, variance = (_constant(part) for part in (layer.mean, layer.variance))
    # Keras replaces a standard deviation below its epsilon, 1e-7, by the epsilon.
    std = variance.sqrt().clamp(min=1e-7)
    return per_step(layer, Normalize(mean, std, is_inverse=bool(layer.invert)))


def convert_embedding(layer: Any, _: ValueSpec) -> nn.Module:
    """keras.layers.Embedding."""
    return Embedding(weight(layer.embeddings), masks_zero=bool(layer.mask_zero))


def convert_masking(layer: Any, spec: ValueSpec) -> nn.Module:
    """keras.layers.Masking of a series."""
    if len(spec.shape) != 3:
        raise_unsupported(
            layer, f"masks a tensor with {len(spec.shape)} axes", "expected a series: batch, steps, channels"
        )
    return Masking(float(layer.mask_value))


def _constant(value: Any) -> Tensor:
    array = value.numpy() if hasattr(value, "numpy") else value
    return torch.tensor(array, dtype=torch.float32)
