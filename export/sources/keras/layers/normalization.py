"""Normalisation layers, with the statistics of training."""

from typing import Any

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from export.sources.keras.layers.values import (
    ValueSpec,
    axis_from_end,
    optional_weight,
    per_step,
    raise_unsupported,
    weight,
    whole,
)


class BatchNorm(nn.Module):
    """`(x - mean) / sqrt(variance + epsilon) * gamma + beta` along one axis, in Keras' order of operations."""

    def __init__(
        self,
        *,
        mean: nn.Parameter,
        variance: nn.Parameter,
        gamma: nn.Parameter | None,
        beta: nn.Parameter | None,
        epsilon: float,
        num_later_axes: int,
    ) -> None:
        super().__init__()
        self.mean, self.variance, self.gamma, self.beta = mean, variance, gamma, beta
        self.epsilon, self.num_later_axes = epsilon, num_later_axes

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.rsqrt(self.variance + self.epsilon)
        scale = scale if self.gamma is None else scale * self.gamma
        y = (x.to(scale.dtype) - self._along_axis(self.mean)) * self._along_axis(scale)
        return y if self.beta is None else y + self._along_axis(self.beta)

    def _along_axis(self, values: Tensor) -> Tensor:
        return values.reshape(-1, *[1] * self.num_later_axes)


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis; missing weights are ones and zeros."""

    def __init__(self, size: int, gamma: nn.Parameter | None, beta: nn.Parameter | None, epsilon: float) -> None:
        super().__init__()
        self.size, self.gamma, self.beta, self.epsilon = size, gamma, beta, epsilon

    def forward(self, x: Tensor) -> Tensor:
        return nnf.layer_norm(x, (self.size,), self.gamma, self.beta, self.epsilon)


class GroupNorm(nn.Module):
    """Group normalisation with the channels on `axis`, with the variance as Keras computes it: E[x^2] - E[x]^2."""

    def __init__(
        self, *, groups: int, gamma: nn.Parameter | None, beta: nn.Parameter | None, epsilon: float, axis: int
    ) -> None:
        super().__init__()
        self.groups, self.gamma, self.beta, self.epsilon, self.axis = groups, gamma, beta, epsilon, axis

    def forward(self, x: Tensor) -> Tensor:
        last = x.movedim(self.axis, -1)
        grouped = last.unflatten(-1, (self.groups, -1))
        axes = [axis for axis in range(1, grouped.dim()) if axis != grouped.dim() - 2]
        mean = grouped.mean(axes, keepdim=True)
        variance = grouped.square().mean(axes, keepdim=True) - mean.square()
        scale = torch.rsqrt(variance + self.epsilon)
        if self.gamma is not None:
            scale = scale * self.gamma.reshape(self.groups, -1)
        offset = -mean * scale
        if self.beta is not None:
            offset = offset + self.beta.reshape(self.groups, -1)
        return (grouped * scale + offset).flatten(-2).movedim(-1, self.axis)


def convert_batch_normalization(layer: Any, spec: ValueSpec) -> nn.Module:
    """keras.layers.BatchNormalization."""
    module = BatchNorm(
        mean=weight(layer.moving_mean),
        variance=weight(layer.moving_variance),
        gamma=optional_weight(layer.gamma) if layer.scale else None,
        beta=optional_weight(layer.beta) if layer.center else None,
        epsilon=float(layer.epsilon),
        num_later_axes=-axis_from_end(layer.axis, spec) - 1,
    )
    return per_step(layer, module)


def convert_layer_normalization(layer: Any, spec: ValueSpec) -> nn.Module:
    """keras.layers.LayerNormalization over the last axis."""
    axes = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
    if [axis_from_end(axis, spec) for axis in axes] != [-1]:
        raise_unsupported(layer, f"normalises over the axes {list(axes)}", "expected the last axis")
    if getattr(layer, "rms_scaling", False):
        raise_unsupported(layer, "scales by the variance (rms_scaling)", "expected rms_scaling=False")
    size = spec.shape[-1]
    assert size is not None
    gamma, beta = (optional_weight(part) for part in (layer.gamma, layer.beta))
    return per_step(layer, LayerNorm(size, gamma, beta, float(layer.epsilon)))


def convert_group_normalization(layer: Any, spec: ValueSpec) -> nn.Module:
    """keras.layers.GroupNormalization. Raises ExportError for a series of free length, over which it would average."""
    channels = spec.shape[layer.axis]
    assert channels is not None
    module = GroupNorm(
        groups=channels if layer.groups == -1 else layer.groups,
        gamma=optional_weight(layer.gamma) if layer.scale else None,
        beta=optional_weight(layer.beta) if layer.center else None,
        epsilon=float(layer.epsilon),
        axis=axis_from_end(layer.axis, spec),
    )
    return whole(layer, spec, module)
