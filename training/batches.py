"""Which items make which batch.

The order of an epoch is a function of the data, the seed and the epoch's number alone: a run that resumes finds its
place by counting. Ragged items meet others of about their length, and a batch is cut to its longest.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.recipe import Split

Indices = npt.NDArray[np.int64]
POOL = 40  # batches' worth of shuffled items that are sorted by length together


def epoch_batches(split: Split, batch_size: int, *, seed: int, epoch: int) -> list[Indices]:
    """All full batches of an epoch, shuffled; what is left over waits for another epoch's order."""
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(len(split))
    batch_size = min(batch_size, len(order))
    if "lengths" in split.inputs:
        lengths = split.inputs["lengths"]
        pools = np.split(order, range(POOL * batch_size, len(order), POOL * batch_size))
        order = np.concatenate([pool[np.argsort(lengths[pool], kind="stable")] for pool in pools])
    full = len(order) // batch_size * batch_size
    batches = np.split(order[:full], full // batch_size)
    return [batches[i] for i in rng.permutation(len(batches))]


def in_order(split: Split, batch_size: int) -> Iterator[Indices]:
    """Every item once, by length where there are lengths."""
    order = np.argsort(split.inputs["lengths"], kind="stable") if "lengths" in split.inputs else np.arange(len(split))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def take(split: Split, batch: Indices) -> tuple[dict[str, Tensor], Tensor]:
    """The inputs and targets of a batch as tensors; ragged ones end at the batch's longest item."""
    longest = int(split.inputs["lengths"][batch].max()) if "lengths" in split.inputs else None
    inputs = {
        name: torch.from_numpy(array[batch] if array.ndim < 2 or longest is None else array[batch, :longest])
        for name, array in split.inputs.items()
    }
    targets = split.targets[batch] if len(split.targets) else np.zeros(len(batch), np.int64)
    return inputs, torch.from_numpy(targets)


def thin(split: Split, num_items: int) -> Split:
    """At most `num_items`, evenly spread over the split."""
    if len(split) <= num_items:
        return split
    kept = np.linspace(0, len(split) - 1, num_items).round().astype(np.int64)
    return Split(inputs={name: array[kept] for name, array in split.inputs.items()}, targets=split.targets[kept])
