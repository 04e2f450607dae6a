"""Weights become the nearest of the levels that their scale allows, and padding becomes zeros."""

import numpy as np
import pytest

from export.precision.quantization import BLOCK, quantize_blocks, quantize_rows


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("shape", [(64, 5), (70, 3), (20, 7)])
def test_every_weight_is_within_half_a_step_of_its_block(bits: int, shape: tuple[int, int]) -> None:
    weights = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    blocks = quantize_blocks(weights, bits)
    steps = np.repeat(blocks.scales.T, BLOCK, axis=0)[: len(weights)]
    assert (np.abs(blocks.restored - weights) <= 0.5001 * steps).all()
    assert blocks.packed.shape == (shape[1], -(-shape[0] // BLOCK), BLOCK * bits // 8)


def test_two_weights_of_four_bits_share_a_byte_with_the_first_in_its_lower_half() -> None:
    blocks = quantize_blocks(np.array([[7.0], [-7.0], [1.0]], np.float32), 4)
    assert blocks.scales.tolist() == [[1.0]]
    assert blocks.packed[0, 0, :3].tolist() == [15 + (1 << 4), 9 + (8 << 4), 8 + (8 << 4)]


@pytest.mark.parametrize("value", [0.0, 1e-45])
def test_weights_without_a_scale_are_zeros(value: float) -> None:
    assert not quantize_blocks(np.full((40, 2), value, np.float32), 8).restored.any()
    assert not quantize_rows(np.full((4, 3), value, np.float32), 1).restored.any()


def test_each_row_has_a_scale_of_its_own() -> None:
    weights = np.array([[1.0, -127.0], [0.001, 0.127]], np.float32)
    rows = quantize_rows(weights, 1)
    assert rows.stored.tolist() == [[1, -127], [1, 127]]
    np.testing.assert_allclose(rows.restored, weights, rtol=1e-6)
    assert quantize_rows(np.ones((2, 8, 3), np.float32), 2).scales.shape == (2, 8, 1)
