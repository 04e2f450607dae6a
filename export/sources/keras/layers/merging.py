"""Layers that merge several values."""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from export.sources.keras.layers.values import Value, ValueSpec, raise_unsupported

MERGES: dict[str, Callable[[Sequence[Tensor]], Tensor]] = {
    "Add": lambda parts: reduce(torch.add, parts),
    "Subtract": lambda parts: parts[0] - parts[1],
    "Multiply": lambda parts: reduce(torch.mul, parts),
    "Average": lambda parts: reduce(torch.add, parts) / len(parts),
    "Maximum": lambda parts: reduce(torch.maximum, parts),
    "Minimum": lambda parts: reduce(torch.minimum, parts),
}
# Keras replaces what these layers find under a mask.
REPLACE_MASKED = ("Multiply", "Maximum", "Minimum")


class Merge(nn.Module):
    """A function of several tensors; the lengths and the mask are those of the first value that has them."""

    def __init__(self, function: Callable[[Sequence[Tensor]], Tensor], *, keeps_mask: bool) -> None:
        super().__init__()
        self.function, self.keeps_mask = function, keeps_mask

    def forward(self, *values: Value) -> Value:
        lengths = next((value.lengths for value in values if value.lengths is not None), None)
        x = self.function([value.x for value in values])
        return Value(x=x, lengths=lengths, mask=values[0].mask if self.keeps_mask else None)


def convert_merge(layer: Any, *specs: ValueSpec) -> nn.Module:
    """keras.layers.Add, Subtract, Multiply, Average, Maximum and Minimum, of tensors with equally many axes."""
    name = type(layer).__name__
    if len({len(spec.shape) for spec in specs}) > 1:
        raise_unsupported(layer, "merges tensors with different numbers of axes", "reshape them to equally many")
    keeps_mask = _keeps_mask(layer, specs)
    if keeps_mask and name in REPLACE_MASKED:
        raise_unsupported(layer, f"is given the mask of layer {specs[0].mask!r}", "merge before the mask is made")
    return Merge(MERGES[name], keeps_mask=keeps_mask)


def convert_concatenate(layer: Any, *specs: ValueSpec) -> nn.Module:
    """keras.layers.Concatenate."""
    axis = layer.axis % len(specs[0].shape)
    if axis == 1 and len(specs[0].shape) > 2 and any(spec.has_lengths for spec in specs):
        raise_unsupported(layer, "joins steps of a free number", "give the Input a fixed number of steps")
    if any(spec.has_lengths != specs[0].has_lengths for spec in specs):
        raise_unsupported(
            layer, "joins a series of free length with another tensor", "repeat the other tensor before the Input"
        )
    keeps_mask = _keeps_mask(layer, specs)
    if keeps_mask and axis != len(specs[0].shape) - 1:
        raise_unsupported(layer, "joins masked tensors along their steps", "join them along the last axis")
    return Merge(lambda parts: torch.cat(tuple(parts), axis), keeps_mask=keeps_mask)


def _keeps_mask(layer: Any, specs: Sequence[ValueSpec]) -> bool:
    masks = {spec.mask for spec in specs}
    if len(masks) > 1:
        raise_unsupported(layer, "merges values with different masks", "mask after merging")
    return masks != {None}
