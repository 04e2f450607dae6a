"""BatchNorm folded into the layer before it: what the exporter computes, recomputed.

In eval mode, BatchNorm(W x + b) is W' x + b' with W' = W s and b' = (b - mean) s + beta, where s = gamma / sqrt(var +
eps) scales the output channels (Ioffe and Szegedy 2015, "Batch Normalization", algorithm 2).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from export.gates.weights.constant import Array

TRANSPOSED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
# The layers into which the exporter folds a BatchNorm.
FOLDABLE = ("linear", "conv1d", "conv2d", "conv3d", *TRANSPOSED)


def fold(operator: str, layer: Mapping[str, Any], norm: Mapping[str, Any]) -> tuple[Array, Array]:
    """Weight and bias with the BatchNorm folded in, in the dtype of the arguments.

    The arguments have PyTorch's names. Every operation is correctly rounded, and their order is the exporter's, so in
    float32 the result has the bits of the exported graph. A linear weight is returned transposed, as [in, out].
    """
    weight, mean = layer["weight"], norm["running_mean"]
    ones, zeros = np.ones_like(mean), np.zeros_like(mean)
    gamma = ones if norm["weight"] is None else norm["weight"]
    beta = zeros if norm["bias"] is None else norm["bias"]
    bias = zeros if layer["bias"] is None else layer["bias"]
    scale = gamma / np.sqrt(norm["running_var"] + norm["eps"])
    folded_bias = (bias - mean) * scale + beta
    if operator in TRANSPOSED:
        # The weight is [in, out / groups, ...].
        groups = layer["groups"]
        grouped = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
        scales = scale.reshape(groups, 1, weight.shape[1], *[1] * (weight.ndim - 2))
        return (grouped * scales).reshape(weight.shape), folded_bias
    folded_weight = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    return (folded_weight.T if operator == "linear" else folded_weight), folded_bias
