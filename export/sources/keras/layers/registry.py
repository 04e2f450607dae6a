"""The layers of Keras that have a twin, by class name. A converter takes the layer and what is known of its inputs."""

from collections.abc import Callable
from typing import Any

from torch import nn

from export.sources.keras.layers.activations import (
    convert_activation,
    convert_elu,
    convert_leaky_relu,
    convert_prelu,
    convert_relu,
    convert_softmax,
)
from export.sources.keras.layers.convolution import (
    convert_convolution,
    convert_depthwise,
    convert_separable,
    convert_transposed,
)
from export.sources.keras.layers.merging import convert_concatenate, convert_merge
from export.sources.keras.layers.normalization import (
    convert_batch_normalization,
    convert_group_normalization,
    convert_layer_normalization,
)
from export.sources.keras.layers.pointwise import (
    convert_dense,
    convert_embedding,
    convert_identity,
    convert_masking,
    convert_normalization,
    convert_rescaling,
)
from export.sources.keras.layers.pooling import convert_global_pool, convert_pool
from export.sources.keras.layers.recurrent import convert_bidirectional, convert_recurrent
from export.sources.keras.layers.reshaping import (
    convert_flatten,
    convert_permute,
    convert_reshape,
    convert_up_sampling,
    convert_zero_padding,
)
from export.sources.keras.layers.values import PerStep, ValueSpec, per_step, raise_unsupported

Converter = Callable[..., nn.Module]

# What may stand inside TimeDistributed: layers that act on the last axis, or on each element, anyway.
DISTRIBUTED = ("Dense", "Activation", "Dropout", "ReLU", "LeakyReLU", "ELU")


def convert_time_distributed(layer: Any, spec: ValueSpec) -> nn.Module:
    """keras.layers.TimeDistributed of a layer that treats all steps alike anyway."""
    name = type(layer.layer).__name__
    if name not in DISTRIBUTED:
        raise_unsupported(layer, f"distributes {name} over the steps", f"expected one of {', '.join(DISTRIBUTED)}")
    module = CONVERTERS[name](layer.layer, spec)
    assert isinstance(module, PerStep)
    return per_step(layer, module.module)


CONVERTERS: dict[str, Converter] = {
    "Activation": convert_activation,
    "ActivityRegularization": convert_identity,
    "Add": convert_merge,
    "AlphaDropout": convert_identity,
    "Average": convert_merge,
    "AveragePooling1D": convert_pool,
    "AveragePooling2D": convert_pool,
    "BatchNormalization": convert_batch_normalization,
    "Bidirectional": convert_bidirectional,
    "Concatenate": convert_concatenate,
    "Conv1D": convert_convolution,
    "Conv1DTranspose": convert_transposed,
    "Conv2D": convert_convolution,
    "Conv2DTranspose": convert_transposed,
    "Dense": convert_dense,
    "DepthwiseConv1D": convert_depthwise,
    "DepthwiseConv2D": convert_depthwise,
    "Dropout": convert_identity,
    "ELU": convert_elu,
    "Embedding": convert_embedding,
    "Flatten": convert_flatten,
    "GRU": convert_recurrent,
    "GaussianDropout": convert_identity,
    "GaussianNoise": convert_identity,
    "GlobalAveragePooling1D": convert_global_pool,
    "GlobalAveragePooling2D": convert_global_pool,
    "GlobalMaxPooling1D": convert_global_pool,
    "GlobalMaxPooling2D": convert_global_pool,
    "GroupNormalization": convert_group_normalization,
    "Identity": convert_identity,
    "LSTM": convert_recurrent,
    "LayerNormalization": convert_layer_normalization,
    "LeakyReLU": convert_leaky_relu,
    "Masking": convert_masking,
    "MaxPooling1D": convert_pool,
    "MaxPooling2D": convert_pool,
    "Maximum": convert_merge,
    "Minimum": convert_merge,
    "Multiply": convert_merge,
    "Normalization": convert_normalization,
    "PReLU": convert_prelu,
    "Permute": convert_permute,
    "ReLU": convert_relu,
    "Rescaling": convert_rescaling,
    "Reshape": convert_reshape,
    "SeparableConv1D": convert_separable,
    "SeparableConv2D": convert_separable,
    "SimpleRNN": convert_recurrent,
    "Softmax": convert_softmax,
    "SpatialDropout1D": convert_identity,
    "SpatialDropout2D": convert_identity,
    "Subtract": convert_merge,
    "TimeDistributed": convert_time_distributed,
    "UpSampling2D": convert_up_sampling,
    "ZeroPadding1D": convert_zero_padding,
    "ZeroPadding2D": convert_zero_padding,
}
