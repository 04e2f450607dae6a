"""Batches: which items of a split form each batch, and their tensors.

The order of an epoch depends only on the data, the seed and the epoch number, so a resumed run finds its position by
counting steps. Batches of ragged items hold items of similar length and are cut to the longest one.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.recipe import Split

Indices = npt.NDArray[np.int64]

# Shuffled ragged items are sorted by length in pools of this many batches.
BATCHES_PER_POOL = 40


def epoch_batches(split: Split, batch_size: int, *, seed: int, epoch: int) -> list[Indices]:
    """The full batches of an epoch, shuffled; items left over at the end are not used in this epoch."""
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(len(split))
    batch_size = min(batch_size, len(order))
    if "lengths" in split.inputs:
        lengths, pool_size = split.inputs["lengths"], BATCHES_PER_POOL * batch_size
        pools = np.split(order, range(pool_size, len(order), pool_size))
        order = np.concatenate([pool[np.argsort(lengths[pool], kind="stable")] for pool in pools])
    num_batches = len(order) // batch_size
    batches = np.split(order[: num_batches * batch_size], num_batches)
    return [batches[i] for i in rng.permutation(len(batches))]


def sequential_batches(split: Split, batch_size: int) -> Iterator[Indices]:
    """Every item once: ragged items by increasing length, others in the order of the split."""
    order = np.argsort(split.inputs["lengths"], kind="stable") if "lengths" in split.inputs else np.arange(len(split))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def batch_tensors(split: Split, batch: Indices) -> tuple[dict[str, Tensor], Tensor]:
    """The inputs and targets of a batch; ragged inputs are cut to the longest item of the batch.

    Without targets (image generator) the targets are zeros, int64 [batch].
    """
    longest = int(split.inputs["lengths"][batch].max()) if "lengths" in split.inputs else None
    inputs = {
        name: torch.from_numpy(array[batch] if array.ndim < 2 or longest is None else array[batch, :longest])
        for name, array in split.inputs.items()
    }
    targets = split.targets[batch] if len(split.targets) else np.zeros(len(batch), np.int64)
    return inputs, torch.from_numpy(targets)


def subsample(split: Split, num_items: int) -> Split:
    """At most `num_items` items, evenly spaced over the split; `texts` are dropped when items are."""
    if len(split) <= num_items:
        return split
    chosen = np.linspace(0, len(split) - 1, num_items).round().astype(np.int64)
    return Split(inputs={name: array[chosen] for name, array in split.inputs.items()}, targets=split.targets[chosen])
