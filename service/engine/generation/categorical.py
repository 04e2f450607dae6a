"""Select tokens by uniform draws from the softmax of logits, whole or truncated.

Invariant: the token of a row depends on the arguments for this row alone, bit for bit. For this, weights are added up
one by one, so that zeros after them change nothing, and functions see contiguous rows.

Computed in float64. Equal logits rank by token id, lowest first. The draw u selects a token by the cumulative weights
in the order of token ids, not of ranks: a difference in the last bits of the logits then changes the token only if u
lies within that difference of a boundary.

Shapes: B rows, V vocabulary, K largest top_k of the rows, N tokens of one row that are kept.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]


class Draw(NamedTuple):
    """How one row is sampled: a number in [0, 1), a temperature above 0, and the cuts in this order.

    A top_k of 0, a top_p of 1 and a min_p of 0, which is a share of the highest probability, keep all tokens.
    """

    uniform: float
    temperature: float
    top_k: int
    top_p: float
    min_p: float


def uniforms(seed: int, choice: int, position: int, num: int) -> list[float]:
    """Return numbers in [0, 1) for the next `num` positions.

    Philox 4x64-10 with the key (seed, choice) and the position as counter (Salmon et al. 2011); the first of the four
    words of each block counts.
    """
    blocks = np.random.Generator(np.random.Philox(key=seed + (choice << 64), counter=position))
    return blocks.random(4 * num)[::4].tolist()


def sample(logits_BV: Logits, maxima_B: Logits, draws: Sequence[Draw]) -> list[int]:
    """Return a token of each row, all cuts aside; `maxima_B` are the finite maxima of the logits."""
    temperatures_B1 = np.array([[draw.temperature] for draw in draws])
    bounds_BV = _weights(logits_BV, maxima_B[:, None], temperatures_B1).cumsum(axis=1)
    return [_select(bounds_V, draw) for bounds_V, draw in zip(bounds_BV, draws, strict=True)]


def sample_truncated(logits_BV: Logits, maxima_B: Logits, draws: Sequence[Draw]) -> list[int]:
    """Return a token of each row, among those that its cuts keep; `maxima_B` as for `sample`.

    All draws have a top_k, or none has.
    """
    thresholds_B, num_kept_B = _cut(logits_BV, maxima_B, draws)
    tokens = []
    for i, draw in enumerate(draws):
        ids_N = _kept_ids(logits_BV[i], thresholds_B[i], int(num_kept_B[i]))
        bounds_N = _weights(logits_BV[i, ids_N], maxima_B[i], draw.temperature).cumsum()
        tokens.append(int(ids_N[_select(bounds_N, draw)]))
    return tokens


def _cut(logits_BV: Logits, maxima_B: Logits, draws: Sequence[Draw]) -> tuple[Logits, npt.NDArray[np.int64]]:
    """Return the lowest logit that each row keeps, and how many tokens it keeps; none has a weight of 0."""
    vocabulary, maxima_B1 = logits_BV.shape[1], maxima_B[:, None]
    _, temperatures_B1, top_k_B1, top_p_B1, min_p_B1 = np.array(draws).T[:, :, None]
    if draws[0].top_k:
        sizes_B1 = np.minimum(top_k_B1, vocabulary).astype(np.int64)
    else:
        weights_BV = _weights(logits_BV, maxima_B1, temperatures_B1)
        totals_B1 = weights_BV.sum(axis=1, keepdims=True)
        # All tokens with a smaller weight have together less than the share that top_p leaves out.
        floors_B1 = np.maximum(min_p_B1, (1 - top_p_B1) * totals_B1 / (2 * vocabulary))
        sizes_B1 = (weights_BV >= floors_B1).sum(axis=1, keepdims=True)
    first = vocabulary - int(sizes_B1.max())
    largest_BK = np.partition(logits_BV, first, axis=1)[:, first:] if first else logits_BV
    ranked_BK = np.sort(largest_BK, axis=1)[:, ::-1].copy()
    weights_BK = _weights(ranked_BK, maxima_B1, temperatures_B1)
    weights_BK[np.arange(ranked_BK.shape[1]) >= sizes_B1] = 0
    mass_BK = weights_BK.cumsum(axis=1)
    if draws[0].top_k:
        totals_B1 = mass_BK[:, -1:]
    num_in_top_p_B = 1 + (mass_BK < top_p_B1 * totals_B1).sum(axis=1)
    num_kept_B = np.minimum(num_in_top_p_B, np.minimum((weights_BK >= min_p_B1).sum(axis=1), sizes_B1[:, 0]))
    return ranked_BK[np.arange(len(ranked_BK)), num_kept_B - 1], num_kept_B


def _kept_ids(logits_V: Logits, threshold: np.float32, num_kept: int) -> npt.NDArray[np.int64]:
    """Return the ids of the `num_kept` largest logits in order; of those at the threshold, the lowest ids."""
    ids_N = np.flatnonzero(logits_V >= threshold)
    if ids_N.size > num_kept:
        ties = np.flatnonzero(logits_V[ids_N] == threshold)
        ids_N = np.delete(ids_N, ties[num_kept - ids_N.size :])
    return ids_N


def _weights(logits: Logits, maxima: Logits | np.float32, temperatures: Floats | float) -> Floats:
    """Return the softmax before it is normalised: the weight of the maximum is 1."""
    # A tiny temperature overflows all logits but the highest to -inf, which is the right result.
    with np.errstate(over="ignore"):
        scaled = (logits.astype(np.float64) - maxima) / temperatures
    return np.exp(scaled, out=scaled)


def _select(bounds_N: Floats, draw: Draw) -> int:
    """Return the first index whose bound is above the draw's share of all weights; its own weight is not 0."""
    return int(bounds_N.searchsorted(draw.uniform * bounds_N[-1], side="right"))
