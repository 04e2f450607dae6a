"""The bins of a distribution, made from the values that it is to describe.

Numbers get bins of about equal counts, which makes the population stability index sensitive everywhere, and two bins
beyond the values that were seen, which are empty. An edge lies between two values, so a rounding error of a value
changes no bin.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from service.drift.distributions import Distribution

NUM_QUANTILES = 10
# Of the range of the values, beside it; of the value itself, if there is only one.
MARGIN, MIN_MARGIN = 0.05, 1e-6
DIGITS = 7


def bin_numbers(values: npt.NDArray[Any]) -> Distribution:
    """Return the distribution of at least one number."""
    ordered = np.sort(values.astype(np.float64))
    low, high = float(ordered[0]), float(ordered[-1])
    margin = max(MARGIN * (high - low), MIN_MARGIN * max(abs(low), abs(high), 1.0))
    edges = {_short(low - margin), _short(high + margin)}
    for share in np.linspace(0, 1, NUM_QUANTILES + 1)[1:-1]:
        upper = int(np.searchsorted(ordered, ordered[int(share * len(ordered))]))
        if upper > 0:
            edges.add(_short((ordered[upper - 1] + ordered[upper]) / 2))
    unlabelled = Distribution(edges=tuple(sorted(edges)), counts=(0,) * (len(edges) + 1))
    return _counted(unlabelled, values)


def bin_categories(indexes: npt.NDArray[Any], count: int) -> Distribution:
    """Return the distribution of the indexes of `count` categories."""
    return _counted(Distribution(counts=(0,) * count), indexes)


def _counted(distribution: Distribution, values: npt.NDArray[Any]) -> Distribution:
    return Distribution(edges=distribution.edges, counts=tuple(distribution.count(values).tolist()))


def _short(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")
