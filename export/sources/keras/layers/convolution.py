"""Convolutions over one or two axes.

Keras' kernels have their channels last, and its padding "same" puts the odd element at the end of an axis. The amount
depends on the size of the axis if there is a stride.

Shapes: B batch, C channels, ... the spatial axes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as nnf
from torch import Tensor, nn

from export.sources.keras.layers.activations import Activation, activation
from export.sources.keras.layers.values import (
    Value,
    ValueSpec,
    bias,
    per_step,
    raise_unsupported,
    weight,
    whole,
)

CONVOLUTIONS: dict[int, Callable[..., Tensor]] = {1: nnf.conv1d, 2: nnf.conv2d}
TRANSPOSED: dict[int, Callable[..., Tensor]] = {1: nnf.conv_transpose1d, 2: nnf.conv_transpose2d}


class Convolution(nn.Module):
    """A convolution with Keras' padding. `kernel` is [out, in / groups, ...], as in PyTorch."""

    def __init__(
        self,
        *,
        kernel: nn.Parameter,
        bias: nn.Parameter | None,
        padding: str,
        strides: Sequence[int],
        dilation: Sequence[int],
        groups: int,
    ) -> None:
        super().__init__()
        self.weight, self.bias = kernel, bias
        self.padding, self.strides, self.dilation, self.groups = padding, tuple(strides), tuple(dilation), groups

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, ...] -> [B, filters, ...]."""
        x = x.to(self.weight.dtype)
        kernel_size = self.weight.shape[2:]
        if self.padding == "causal":
            x = nnf.pad(x, ((kernel_size[0] - 1) * self.dilation[0], 0))
        padding: tuple[int, ...] = (0,) * len(kernel_size)
        if self.padding == "same":
            paddings = [
                same_padding(size, kernel, stride, dilation)
                for size, kernel, stride, dilation in zip(
                    x.shape[2:], kernel_size, self.strides, self.dilation, strict=True
                )
            ]
            if all(before == after for before, after in paddings):
                padding = tuple(before for before, _ in paddings)
            else:
                x = nnf.pad(x, [end for pair in reversed(paddings) for end in pair])
        convolve = CONVOLUTIONS[len(kernel_size)]
        return convolve(x, self.weight, self.bias, self.strides, padding, self.dilation, self.groups)


class TransposedConvolution(nn.Module):
    """A transposed convolution; `crops` is how much Keras cuts off its full result at both ends of each axis."""

    def __init__(
        self,
        *,
        kernel: nn.Parameter,
        bias: nn.Parameter | None,
        strides: Sequence[int],
        dilation: Sequence[int],
        crops: Sequence[tuple[int, int]],
    ) -> None:
        super().__init__()
        self.weight, self.bias = kernel, bias
        self.strides, self.dilation = tuple(strides), tuple(dilation)
        self.paddings = tuple(-end for pair in reversed(crops) for end in pair)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, ...] -> [B, filters, ...]."""
        convolve = TRANSPOSED[len(self.strides)]
        y = convolve(x.to(self.weight.dtype), self.weight, None, self.strides, dilation=self.dilation)
        # A negative end cuts, a positive one appends zeros, which get the bias like all others.
        y = nnf.pad(y, self.paddings) if any(self.paddings) else y
        return y if self.bias is None else y + self.bias.reshape(-1, *[1] * len(self.strides))


class ChannelsFirst(nn.Module):
    """Applies modules that want the channels on axis 1 to tensors that have them last, and then the activation."""

    def __init__(self, *modules: nn.Module, is_last: bool, function: Activation | None = None) -> None:
        super().__init__()
        self.inner, self.is_last, self.function = nn.ModuleList(modules), is_last, function

    def forward(self, x: Tensor) -> Tensor:
        x = x.movedim(-1, 1) if self.is_last else x
        for module in self.inner:
            x = module(x)
        x = x.movedim(1, -1) if self.is_last else x
        return x if self.function is None else self.function(x)


class OverSteps(nn.Module):
    """A convolution along the steps of rows with their own lengths: it sees zeros after the end of a row."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, value: Value) -> Value:
        lengths_B = value.lengths
        valid_BT = Value(x=value.x, lengths=lengths_B).valid_steps()
        x = value.x if valid_BT is None else value.x.masked_fill(~valid_BT[..., None], 0.0)
        return Value(x=self.module(x), lengths=lengths_B)


def same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """How many elements Keras adds before and after an axis."""
    reach = (kernel - 1) * dilation
    total = reach if stride == 1 else max(0, -(-size // stride) * stride - stride + reach + 1 - size)
    return total // 2, total - total // 2


def convert_convolution(layer: Any, spec: ValueSpec) -> nn.Module:
    """keras.layers.Conv1D and Conv2D."""
    rank = layer.rank
    kernel = weight(layer.kernel)
    kernel.data = kernel.data.permute(rank + 1, rank, *range(rank)).contiguous()
    module = Convolution(
        kernel=kernel,
        bias=bias(layer),
        padding=layer.padding,
        strides=layer.strides,
        dilation=layer.dilation_rate,
        groups=layer.groups,
    )
    return _convert(layer, spec, module)


def convert_depthwise(layer: Any, spec: ValueSpec) -> nn.Module:
    """keras.layers.DepthwiseConv1D and DepthwiseConv2D."""
    return _convert(layer, spec, _depthwise(layer, layer.kernel, bias(layer)))


def convert_separable(layer: Any, spec: ValueSpec) -> nn.Module:
    """keras.layers.SeparableConv1D and SeparableConv2D: a depthwise convolution, then one of size 1."""
    rank = layer.rank
    pointwise = weight(layer.pointwise_kernel)
    pointwise.data = pointwise.data.permute(rank + 1, rank, *range(rank)).contiguous()
    mix = Convolution(
        kernel=pointwise,
        bias=bias(layer),
        padding="valid",
        strides=[1] * rank,
        dilation=[1] * rank,
        groups=1,
    )
    return _convert(layer, spec, _depthwise(layer, layer.depthwise_kernel, None), mix)


def convert_transposed(layer: Any, spec: ValueSpec) -> nn.Module:
    """keras.layers.Conv1DTranspose and Conv2DTranspose."""
    from keras.src.backend.common.backend_utils import (  # noqa: PLC0415 - keras takes seconds to import
        compute_conv_transpose_output_crops_for_torch,
    )

    rank = layer.rank
    kernel = weight(layer.kernel)
    crops = compute_conv_transpose_output_crops_for_torch(
        spec.shape, tuple(kernel.shape), layer.strides, layer.padding, layer.output_padding, layer.dilation_rate
    )
    kernel.data = kernel.data.permute(rank + 1, rank, *range(rank)).contiguous()
    module = TransposedConvolution(
        kernel=kernel,
        bias=bias(layer),
        strides=layer.strides,
        dilation=layer.dilation_rate,
        crops=crops,
    )
    is_last = layer.data_format == "channels_last"
    return whole(layer, spec, ChannelsFirst(module, is_last=is_last, function=activation(layer)))


def _depthwise(layer: Any, variable: Any, offset: nn.Parameter | None) -> Convolution:
    kernel = weight(variable)
    *size, channels, multiplier = kernel.shape
    axes = range(len(size))
    # [..., channels, multiplier] -> [channels * multiplier, 1, ...]
    kernel.data = kernel.data.reshape(*size, 1, channels * multiplier).permute(-1, -2, *axes).contiguous()
    return Convolution(
        kernel=kernel,
        bias=offset,
        padding=layer.padding,
        strides=layer.strides,
        dilation=layer.dilation_rate,
        groups=channels,
    )


def _convert(layer: Any, spec: ValueSpec, *modules: nn.Module) -> nn.Module:
    is_last = layer.data_format == "channels_last"
    module = ChannelsFirst(*modules, is_last=is_last, function=activation(layer))
    if not spec.has_lengths:
        return per_step(layer, module)
    if layer.padding == "valid" and tuple(layer.kernel_size) != (1,):
        raise_unsupported(
            layer,
            f"with padding='valid' needs {layer.kernel_size[0]} steps, and a series of free length may have one",
            "use padding='same' or 'causal', or give the Input a fixed number of steps",
        )
    if len(layer.kernel_size) != 1 or not is_last or tuple(layer.strides) != (1,):
        raise_unsupported(
            layer,
            "skips steps of a series of free length",
            "expected a convolution over the steps with strides=1 and channels_last, or a fixed number of steps",
        )
    return OverSteps(module)
