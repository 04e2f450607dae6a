"""The targets of examples: what the model should answer, for the metric on the card. No targets are no metric."""

from typing import Any

import numpy as np

from export.source import Array
from export.sources.examples import Examples
from export.spec import LabelsPart, MultilabelPart, TokenLabelsPart, ValuesPart
from training.recipe import IGNORE_INDEX

NONE = np.empty(0, np.int64)


def read_targets(head: Any, examples: Examples) -> Array:
    """The targets for this head, or an empty array. Raises ValueError for targets that the head cannot have."""
    if not examples.targets:
        return NONE
    match head:
        case LabelsPart():
            for targets in examples.targets:
                if targets.size != len(targets):
                    raise ValueError(f"{examples.path}: targets have the axes {list(targets.shape)}, expected [items]")
            return _codes(np.concatenate([one.reshape(-1) for one in examples.targets]), head.labels, examples)
        case MultilabelPart() | ValuesPart():
            targets = np.concatenate([one.reshape(len(one), -1) for one in examples.targets])
            names = head.labels if isinstance(head, MultilabelPart) else head.names
            if targets.shape[1] != len(names):
                raise ValueError(
                    f"{examples.path}: targets have the axes {list(targets.shape)}, expected [items, {len(names)}]"
                )
            return (
                _chosen(targets, examples)
                if isinstance(head, MultilabelPart)
                else _numbers(targets, examples).astype(np.float32)
            )
        case TokenLabelsPart():
            return _step_targets(head.labels, examples)
    return NONE


def _step_targets(labels: tuple[str, ...], examples: Examples) -> Array:
    all_targets: tuple[Any, ...] = examples.targets
    longest = max(max(targets.shape[1:], default=0) for targets in all_targets)
    rows = []
    for targets in all_targets:
        if targets.ndim != 2:
            raise ValueError(f"{examples.path}: targets have the axes {list(targets.shape)}, expected [items, steps]")
        codes = _codes(targets.reshape(-1), labels, examples, ignored=True).reshape(targets.shape)
        rows.append(np.pad(codes, [(0, 0), (0, longest - codes.shape[-1])], constant_values=IGNORE_INDEX))
    return np.concatenate(rows)


def _codes(targets: Array, labels: tuple[str, ...], examples: Examples, *, ignored: bool = False) -> Array:
    """The index of each label; numbers are indices already, and may be IGNORE_INDEX for a step that does not count."""
    if targets.dtype.kind == "U":
        index = {label: i for i, label in enumerate(labels)}
        if unknown := sorted({str(target) for target in targets} - set(index)):
            raise ValueError(f"{examples.path}: the target {unknown[0]!r} is none of the labels {', '.join(labels)}")
        return np.array([index[str(target)] for target in targets], np.int64)
    codes = _numbers(targets, examples).astype(np.int64)
    if targets.dtype.kind == "f" and (codes != targets).any():
        raise ValueError(
            f"{examples.path}: a target is {targets[codes != targets][0]:g}, expected whole numbers, which are places "
            "of labels, or the labels themselves"
        )
    unknown_codes = codes[(codes < 0) | (codes >= len(labels))]
    unknown_codes = unknown_codes[unknown_codes != IGNORE_INDEX] if ignored else unknown_codes
    if unknown_codes.size:
        raise ValueError(f"{examples.path}: a target is {unknown_codes[0]}, the labels are 0 to {len(labels) - 1}")
    return codes


def _chosen(targets: Array, examples: Examples) -> Array:
    """Which labels each item has, as 0 and 1."""
    numbers = _numbers(targets, examples)
    if (others := numbers[(numbers != 0) & (numbers != 1)]).size:
        raise ValueError(
            f"{examples.path}: a target is {others[0]:g}, expected 1 for each label of the item, or else 0"
        )
    return numbers.astype(np.int64)


def _numbers(targets: Array, examples: Examples) -> Array:
    """The targets, which must be finite numbers."""
    if targets.dtype.kind not in "biuf":
        raise ValueError(f"{examples.path}: targets are {targets.dtype}, expected numbers")
    if not np.isfinite(targets).all():
        raise ValueError(f"{examples.path}: target {np.argwhere(~np.isfinite(targets))[0][0]} is not finite")
    return targets
