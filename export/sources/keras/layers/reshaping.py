"""Layers that move elements: they never see a series of free length."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as nnf
from torch import Tensor, nn

from export.sources.keras.layers.values import Function, ValueSpec, raise_unsupported, whole


class Reshape(nn.Module):
    """[batch, ...] -> [batch, *shape]; one size may be -1."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], *self.shape)


class Repeat(nn.Module):
    """Repeats each element along some axes, or interpolates between elements."""

    def __init__(self, *, size: Sequence[int], is_last: bool, interpolation: str) -> None:
        super().__init__()
        self.size, self.is_last, self.interpolation = tuple(size), is_last, interpolation

    def forward(self, x: Tensor) -> Tensor:
        x = x.movedim(-1, 1) if self.is_last else x
        y = nnf.interpolate(x, scale_factor=self.size, mode=self.interpolation)
        return y.movedim(1, -1) if self.is_last else y


def convert_flatten(layer: Any, spec: ValueSpec) -> nn.Module:
    """keras.layers.Flatten."""
    is_first = layer.data_format == "channels_first" and len(spec.shape) > 2
    return whole(layer, spec, Function(lambda x: (x.movedim(1, -1) if is_first else x).flatten(1)))


def convert_reshape(layer: Any, spec: ValueSpec) -> nn.Module:
    """keras.layers.Reshape."""
    shape = [-1 if size is None else int(size) for size in layer.target_shape]
    return whole(layer, spec, Reshape(shape))


def convert_permute(layer: Any, spec: ValueSpec) -> nn.Module:
    """keras.layers.Permute."""
    axes = (0, *layer.dims)
    return whole(layer, spec, Function(lambda x: x.permute(axes)))


def convert_zero_padding(layer: Any, spec: ValueSpec) -> nn.Module:
    """keras.layers.ZeroPadding1D and ZeroPadding2D."""
    pairs = layer.padding if isinstance(layer.padding[0], list | tuple) else [layer.padding]
    paddings = [int(end) for pair in reversed(pairs) for end in pair]
    if layer.data_format == "channels_last":
        paddings = [0, 0, *paddings]
    return whole(layer, spec, Function(lambda x: nnf.pad(x, paddings)))


def convert_up_sampling(layer: Any, spec: ValueSpec) -> nn.Module:
    """keras.layers.UpSampling2D, nearest or bilinear."""
    if layer.interpolation not in ("nearest", "bilinear"):
        raise_unsupported(layer, f"interpolates with {layer.interpolation!r}", "expected 'nearest' or 'bilinear'")
    is_last = layer.data_format == "channels_last"
    return whole(layer, spec, Repeat(size=layer.size, is_last=is_last, interpolation=layer.interpolation))
