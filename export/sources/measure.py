"""The metric of a model from elsewhere: what its reference scores on its own examples, for the card and the tables."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from export.source import Array, Predict
from export.sources.payload import Payload
from export.sources.trials import free_axes, take_items
from service.contract.heads import Head, LabelsHead, MultilabelHead, TokenLabelsHead, ValuesHead
from training.recipe import IGNORE_INDEX

MAX_BATCH = 64


def measure(head: Head, payload: Payload, predict: Predict) -> dict[str, float]:
    """The score of the reference on the examples; {} without targets, or for a head that has no score."""
    targets: Any = payload.split.targets
    if not len(targets) or not isinstance(head, LabelsHead | MultilabelHead | ValuesHead | TokenLabelsHead):
        return {}
    total, count = 0.0, 0
    for items in _batches(payload):
        sizes, inputs = take_items(payload, items)
        outputs, expected = predict(inputs), targets[items]
        if isinstance(head, TokenLabelsHead):
            is_step = np.arange(sizes["steps"]) < inputs["lengths"][:, None]
            expected = np.where(is_step, expected[:, : sizes["steps"]], IGNORE_INDEX)
        part, number = _score(head, outputs, expected)
        total, count = total + part, count + number
    name = "test_mean_absolute_error" if isinstance(head, ValuesHead) else "test_accuracy"
    return {name: total / max(count, 1)}


def _score(head: Head, outputs: dict[str, Array], expected: Array) -> tuple[float, int]:
    """The sum of what is scored, and how many it is of."""
    if isinstance(head, ValuesHead):
        return float(np.abs(outputs["values"] - expected).sum()), expected.size
    probabilities = outputs["probabilities"]
    if isinstance(head, MultilabelHead):
        return float(((probabilities >= head.threshold) == (expected > 0)).sum()), expected.size
    counted = expected != IGNORE_INDEX
    return float((probabilities.argmax(-1) == expected)[counted].sum()), int(counted.sum())


def _batches(payload: Payload) -> Iterator[Array]:
    """All items in batches of one size along every free axis; a ragged batch is no longer than its items."""
    arrays, num_items = payload.split.inputs, len(payload.split)
    free = free_axes(payload)
    groups: dict[tuple[int, ...], list[int]] = {}
    for item in range(num_items):
        groups.setdefault(tuple(int(arrays[axis][item]) for axis in free), []).append(item)
    for members in groups.values():
        for start in range(0, len(members), MAX_BATCH):
            yield np.array(members[start : start + MAX_BATCH])
