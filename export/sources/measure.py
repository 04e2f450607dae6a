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
# How far the sum of probabilities is from 1, and how far rounding takes one of them below 0.
MAX_SUM_ERROR, MAX_BELOW = 1e-2, 1e-5


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


def check_scores(head: Head, payload: Payload, predict: Predict) -> None:
    """Raise ValueError if the scores of labels are no probabilities, or were probabilities before their activation."""
    if not isinstance(head, LabelsHead | MultilabelHead | TokenLabelsHead):
        return
    sizes, inputs = take_items(payload, np.arange(min(len(payload.split), MAX_BATCH)))
    outputs = predict(inputs)
    if isinstance(head, TokenLabelsHead):
        is_step = np.arange(sizes["steps"]) < inputs["lengths"][:, None]
        outputs = {name: outputs[name][is_step] for name in ("logits", "probabilities") if name in outputs}
    scores, logits = outputs["probabilities"].astype(np.float64), outputs.get("logits")
    is_sum_one = isinstance(head, MultilabelHead) or bool(np.abs(scores.sum(-1) - 1).max() <= MAX_SUM_ERROR)
    if scores.min() < -MAX_BELOW or scores.max() > 1 + MAX_SUM_ERROR or not is_sum_one:
        raise ValueError(
            f"the output for the head {head.kind} holds {scores.min():.3g} to {scores.max():.3g} and is no "
            "probability; "
            'set activation = "softmax" or "sigmoid" in [head]'
        )
    if logits is None:
        return
    if isinstance(head, MultilabelHead):
        if logits.min() >= 0 and logits.max() <= 1:
            raise ValueError(
                "every score of the output is from 0 to 1 already, and a sigmoid would change it; "
                'set activation = "none" in [head], and if these are no probabilities, let the model compute them'
            )
    elif logits.shape[-1] > 1 and are_probabilities(logits):
        raise ValueError(
            "the output holds probabilities already, each row with the sum 1, and a softmax would change them; "
            'set activation = "none" in [head]'
        )


def are_probabilities(array: Array) -> bool:
    """Whether every row holds numbers from 0 whose sum is 1."""
    sums = array.astype(np.float64).sum(-1)
    return array.ndim > 1 and bool((array >= -MAX_BELOW).all() and np.abs(sums - 1).max() <= MAX_SUM_ERROR)


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
