"""Cutting a held-back part off a data set.

The cut is a function of the targets and the seed alone, takes the same share of every class, and keeps the order.
"""

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


def hold_out(targets: npt.NDArray[np.int64], *, share: float, seed: int) -> tuple[Indices, Indices]:
    """Positions (kept, held), each sorted; `share` of every class is held, at least one item where it has two."""
    rng = np.random.default_rng(seed)
    held: list[Indices] = []
    for label in np.unique(targets):
        members = np.flatnonzero(targets == label)
        count = min(max(1, round(len(members) * share)), len(members) - 1)
        held.append(rng.permutation(members)[:count])
    taken = np.sort(np.concatenate(held))
    return np.setdiff1d(np.arange(len(targets)), taken), taken
