"""Pooling over one or two axes, and over all steps of a row.

Shapes: B batch, T steps, C channels.
"""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as nnf
from torch import Tensor, nn

from export.sources.keras.layers.convolution import ChannelsFirst, same_padding
from export.sources.keras.layers.values import Value, ValueSpec, raise_unsupported, whole


class Pool(nn.Module):
    """Maximum or average over windows, with Keras' padding."""

    def __init__(self, *, is_maximum: bool, size: Sequence[int], strides: Sequence[int], is_same: bool) -> None:
        super().__init__()
        self.is_maximum, self.size, self.strides, self.is_same = is_maximum, tuple(size), tuple(strides), is_same

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, ...] -> [B, C, ...]."""
        padding: tuple[int, ...] = (0,) * len(self.size)
        if self.is_same:
            paddings = [
                same_padding(size, window, stride, 1)
                for size, window, stride in zip(x.shape[2:], self.size, self.strides, strict=True)
            ]
            if all(before == after for before, after in paddings):
                padding = tuple(before for before, _ in paddings)
            else:
                # A copy of the last element changes no maximum; `convert_pool` refuses averages with such a padding.
                x = nnf.pad(x, [end for pair in reversed(paddings) for end in pair], mode="replicate")
        if self.is_maximum:
            pool = nnf.max_pool1d if len(self.size) == 1 else nnf.max_pool2d
            maximum: Tensor = pool(x, self.size, self.strides, padding)
            return maximum
        average = nnf.avg_pool1d if len(self.size) == 1 else nnf.avg_pool2d
        return average(x, self.size, self.strides, padding, count_include_pad=False)


class Reduce(nn.Module):
    """Maximum or average over the given axes."""

    def __init__(self, *, is_maximum: bool, axes: Sequence[int], keepdims: bool) -> None:
        super().__init__()
        self.is_maximum, self.axes, self.keepdims = is_maximum, tuple(axes), keepdims

    def forward(self, x: Tensor) -> Tensor:
        return x.amax(self.axes, self.keepdims) if self.is_maximum else x.mean(self.axes, self.keepdims)


class MaximumOfSteps(nn.Module):
    """The maximum over the steps that a row has, [B, T, C] -> [B, C]; Keras ignores a mask here."""

    def __init__(self, *, keepdims: bool) -> None:
        super().__init__()
        self.keepdims = keepdims

    def forward(self, value: Value) -> Value:
        valid_BT = Value(x=value.x, lengths=value.lengths).valid_steps()
        x = value.x if valid_BT is None else value.x.masked_fill(~valid_BT[..., None], float("-inf"))
        return Value(x=x.amax(1, self.keepdims))


class MeanOfSteps(nn.Module):
    """The mean over the steps that a row has and its mask admits, [B, T, C] -> [B, C]."""

    def __init__(self, *, keepdims: bool) -> None:
        super().__init__()
        self.keepdims = keepdims

    def forward(self, value: Value) -> Value:
        valid_BT = value.valid_steps()
        if valid_BT is None:
            return Value(x=value.x.mean(1, self.keepdims))
        valid_BT1 = valid_BT[..., None]
        total = value.x.masked_fill(~valid_BT1, 0.0).sum(1, self.keepdims)
        return Value(x=total / valid_BT1.sum(1, self.keepdims).to(total.dtype))


def convert_pool(layer: Any, spec: ValueSpec) -> nn.Module:
    """keras.layers.MaxPooling1D and 2D, AveragePooling1D and 2D."""
    is_maximum, is_last = layer.pool_mode == "max", layer.data_format == "channels_last"
    size, strides, is_same = tuple(layer.pool_size), tuple(layer.strides), layer.padding == "same"
    if is_same and not is_maximum:
        axes = spec.shape[1:-1] if is_last else spec.shape[2:]
        for axis, window, stride in zip(axes, size, strides, strict=True):
            if axis is None and stride != 1:
                raise_unsupported(
                    layer, "averages with padding='same' over a free axis", "use padding='valid', or a fixed size"
                )
            before, after = same_padding(axis or 0, window, stride, 1)
            if before != after:
                raise_unsupported(
                    layer,
                    f"pads an axis by {before} elements before and {after} after it, and Keras' backends average "
                    "over such a padding differently",
                    "use padding='valid', or a size that is padded evenly",
                )
    module = Pool(is_maximum=is_maximum, size=size, strides=strides, is_same=is_same)
    return whole(layer, spec, ChannelsFirst(module, is_last=is_last))


def convert_global_pool(layer: Any, spec: ValueSpec) -> nn.Module:
    """keras.layers.GlobalMaxPooling1D and 2D, GlobalAveragePooling1D and 2D."""
    is_maximum, keepdims = "Max" in type(layer).__name__, bool(layer.keepdims)
    first = 1 if layer.data_format == "channels_last" else 2
    num_axes = len(spec.shape) - 2
    if num_axes == 1 and first == 1:
        return MaximumOfSteps(keepdims=keepdims) if is_maximum else MeanOfSteps(keepdims=keepdims)
    module = Reduce(is_maximum=is_maximum, axes=range(first, first + num_axes), keepdims=keepdims)
    return whole(layer, spec, module)
