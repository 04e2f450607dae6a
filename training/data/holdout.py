"""Stratified holdout: a validation or test part split off a data set.

The split depends only on the targets and the seed, takes the same share of every class and preserves the order.
"""

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


def hold_out(targets: npt.NDArray[np.int64], *, share: float, seed: int) -> tuple[Indices, Indices]:
    """Sorted positions of the remaining and of the held-out items.

    `share` of every class is held out: at least one item, except from a class with a single item.
    """
    rng = np.random.default_rng(seed)
    held_out: list[Indices] = []
    for label in np.unique(targets):
        members = np.flatnonzero(targets == label)
        count = min(max(1, round(len(members) * share)), len(members) - 1)
        held_out.append(rng.permutation(members)[:count])
    positions = np.sort(np.concatenate(held_out))
    return np.setdiff1d(np.arange(len(targets)), positions), positions
