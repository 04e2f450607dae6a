"""The arithmetic of stored integers: symmetric, rounded to the nearest, with one scale for a block or a row of weights.

Shapes: K inputs, N outputs of a matrix product; B blocks of BLOCK inputs each.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# Inputs that share a scale. A smaller block is more precise, and has more scales: of 32, a weight of 8 bits takes 9.
BLOCK = 32
ROW_BITS = 8


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """A matrix [K, N] as the operator MatMulNBits stores it.

    `packed` is uint8 [N, B, bytes of a block], where the middle of the range stands for zero and two weights of 4 bits
    share a byte, the first in its lower half. `scales` is float32 [N, B], `restored` the matrix that they stand for.
    """

    packed: npt.NDArray[np.uint8]
    scales: npt.NDArray[np.float32]
    restored: npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """An array as int8, with a scale for each slice along some axes, which broadcasts to it."""

    stored: npt.NDArray[np.int8]
    scales: npt.NDArray[np.float32]

    @property
    def restored(self) -> npt.NDArray[np.float32]:
        """The array that the integers stand for."""
        return self.stored.astype(np.float32) * self.scales


def quantize_blocks(weights_KN: npt.NDArray[np.float32], bits: int) -> Blocks:
    """Round a matrix to `bits` of 4 or 8; the last block is filled with zeros."""
    num_inputs, num_outputs = weights_KN.shape
    num_blocks, zero = -(-num_inputs // BLOCK), 1 << (bits - 1)
    padded = np.zeros((num_blocks * BLOCK, num_outputs), np.float32)
    padded[:num_inputs] = weights_KN
    blocks = padded.T.reshape(num_outputs, num_blocks, BLOCK)
    scales = _scales(np.abs(blocks).max(-1), bits)
    levels = _rounded(blocks / scales[..., None], bits)
    restored = (levels * scales[..., None]).reshape(num_outputs, -1).T[:num_inputs]
    stored = (levels + zero).astype(np.uint8)
    packed = stored if bits == ROW_BITS else (stored[..., ::2] | (stored[..., 1::2] << 4)).astype(np.uint8)
    return Blocks(packed=packed, scales=scales, restored=np.ascontiguousarray(restored))


def quantize_rows(weights: npt.NDArray[np.float32], num_axes: int) -> Rows:
    """Round an array to 8 bits, with one scale for each index of its first `num_axes` axes."""
    axes = tuple(range(num_axes, weights.ndim))
    scales = _scales(np.abs(weights).max(axis=axes, keepdims=True), ROW_BITS)
    return Rows(stored=_rounded(weights / scales, ROW_BITS).astype(np.int8), scales=scales)


def _scales(largest: npt.NDArray[np.float32], bits: int) -> npt.NDArray[np.float32]:
    scales = (largest / np.float32((1 << (bits - 1)) - 1)).astype(np.float32)
    # Weights that are all zero, or so small that their scale is, are stored as zeros.
    return np.where(scales > 0, scales, np.float32(1))


def _rounded(values: npt.NDArray[np.floating], bits: int) -> npt.NDArray[np.float32]:
    limit = (1 << (bits - 1)) - 1
    return np.clip(np.rint(values), -limit, limit).astype(np.float32)
