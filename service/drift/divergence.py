"""How far two distributions of counts are apart, and how far apart two samples of one distribution may be.

Shapes: B bins.
"""

from math import log, log2, sqrt
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
# Added to each bin that one of the samples has items in, because the index of an empty bin is infinite.
PSEUDO_COUNT = 0.5


def stability_index(reference_B: Counts, counts_B: Counts) -> float:
    """Return the population stability index, sum of (q - p) ln(q / p); 0 if a sample is empty.

    It is Jeffreys' divergence of the shares (N. Siddiqi, Credit Risk Scorecards, 2006, chapter 9; H. Jeffreys, Proc.
    R. Soc. A 186, 1946). Bins that both leave empty do not count.
    """
    shares = _shares(reference_B, counts_B, PSEUDO_COUNT)
    return sum((q - p) * log(q / p) for p, q in shares)


def shannon_distance(reference_B: Counts, counts_B: Counts) -> float:
    """Return the Jensen-Shannon distance to base 2, from 0 to 1 for samples that share no bin; 0 if a sample is empty.

    The root of the divergence is a metric (J. Lin, IEEE Trans. Inf. Theory 37, 1991; D. Endres and J. Schindelin, IEEE
    Trans. Inf. Theory 49, 2003).
    """
    total = 0.0
    for p, q in _shares(reference_B, counts_B, 0.0):
        total += sum(share * log2(2 * share / (p + q)) for share in (p, q) if share > 0) / 2
    return sqrt(min(max(total, 0.0), 1.0))


def sampling_noise(reference_B: Counts, counts_B: Counts, *, probability: float, rows: int | None = None) -> float:
    """Return the index that two samples of one distribution exceed with this probability; infinite if one is empty.

    The index of samples of sizes n and m is about chi-squared, with B - 1 degrees of freedom, times 1/n + 1/m
    (B. Yurdakul and J. Naranjo, Statistical properties of the population stability index, J. Risk Model Validation 14,
    2020). `rows` is the number of items if an item counts several times.
    """
    sizes = [int(sample.sum()) for sample in (reference_B, counts_B)]
    if rows is not None:
        sizes[1] = min(sizes[1], rows)
    if not all(sizes):
        return float("inf")
    freedom = int(((reference_B > 0) | (counts_B > 0)).sum()) - 1
    return chi_squared_quantile(1 - probability, freedom) * sum(1 / size for size in sizes) if freedom else 0.0


def chi_squared_quantile(share: float, freedom: int) -> float:
    """Return the quantile by the cube of a normal (E. Wilson and M. Hilferty, PNAS 17, 1931), within 3 % from 3 on."""
    spread = 2 / (9 * freedom)
    return freedom * float((1 - spread + NormalDist().inv_cdf(share) * sqrt(spread)) ** 3)


def _shares(reference_B: Counts, counts_B: Counts, pseudo_count: float) -> list[tuple[float, float]]:
    """The shares of both samples in each bin that one of them has items in."""
    pairs = [(int(p), int(q)) for p, q in zip(reference_B, counts_B, strict=True) if p or q]
    totals = [sum(pair[side] for pair in pairs) for side in (0, 1)]
    if not all(totals):
        return []
    smoothed = [total + pseudo_count * len(pairs) for total in totals]
    return [((p + pseudo_count) / smoothed[0], (q + pseudo_count) / smoothed[1]) for p, q in pairs]
