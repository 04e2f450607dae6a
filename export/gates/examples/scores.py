"""Scores of a model from elsewhere on its examples, where they have targets: one for each head that can be scored."""

from collections.abc import Callable

import numpy as np

from export.gates.cases import Array
from export.gates.examples.example_cases import ExampleCase
from export.source import Source
from service.bundle import Tensors
from service.contract.heads import LabelsHead, LanguageModelHead, MultilabelHead, TokenLabelsHead, ValuesHead
from training.recipe import IGNORE_INDEX

# The total and the number of what was counted.
Tally = tuple[float, int]


class Score:
    """The mean of one score over batches of examples."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._total, self._count = 0.0, 0

    @property
    def name(self) -> str | None:
        """The name of the score; None if the head has none or the examples have no targets."""
        has_targets = len(self._source.examples.targets) == len(self._source.examples)
        named = NAMES.get(type(self._source.head))
        return named if has_targets or named == LOSS else None

    def add(self, outputs: Tensors, batch: ExampleCase) -> None:
        """Score a batch."""
        total, count = TALLIES[type(self._source.head)](self._source, outputs, batch)
        self._total, self._count = self._total + total, self._count + count

    def mean(self) -> float:
        return self._total / max(1, self._count)


def _labels(source: Source, outputs: Tensors, batch: ExampleCase) -> Tally:
    predicted = outputs["probabilities"].argmax(-1)
    return float((predicted == source.examples.targets[batch.items]).sum()), len(batch.items)


def _multilabel(source: Source, outputs: Tensors, batch: ExampleCase) -> Tally:
    assert isinstance(source.head, MultilabelHead)
    predicted = outputs["probabilities"] >= np.float32(source.head.threshold)
    equal = predicted == (source.examples.targets[batch.items] > 0)
    return float(equal.sum()), equal.size


def _values(source: Source, outputs: Tensors, batch: ExampleCase) -> Tally:
    distance = np.abs(outputs["values"].astype(np.float64) - source.examples.targets[batch.items])
    return float(distance.sum()), distance.size


def _token_labels(source: Source, outputs: Tensors, batch: ExampleCase) -> Tally:
    predicted = outputs["probabilities"].argmax(-1)
    targets = _steps_of(source, batch, predicted.shape[1])
    return float((predicted == targets)[targets != IGNORE_INDEX].sum()), int((targets != IGNORE_INDEX).sum())


def _language_model(source: Source, outputs: Tensors, batch: ExampleCase) -> Tally:
    """Nats of the next token: of the targets, or of the tokens themselves."""
    logits = outputs["logits"].astype(np.float64)
    if len(source.examples.targets) == len(source.examples):
        targets = _steps_of(source, batch, logits.shape[1])
    else:
        targets = np.full(logits.shape[:2], IGNORE_INDEX)
        for row, length in enumerate(batch.case.inputs["lengths"]):
            targets[row, : length - 1] = batch.case.inputs["ids"][row, 1:length]
    is_counted = targets != IGNORE_INDEX
    chosen, expected = logits[is_counted], targets[is_counted]
    largest = chosen.max(axis=-1, keepdims=True, initial=-np.inf)
    normalizer = np.log(np.exp(chosen - largest).sum(-1)) + largest[:, 0]
    return float((normalizer - chosen[np.arange(len(expected)), expected]).sum()), len(expected)


def _steps_of(source: Source, batch: ExampleCase, num_steps: int) -> Array:
    """The targets of each step, [batch, steps]; steps beyond the length of an item do not count.

    The one target of a whole item is that of its last step, as in the scores of training.
    """
    targets, lengths = source.examples.targets[batch.items], batch.case.inputs["lengths"]
    if targets.ndim > 1:
        targets = targets[:, :num_steps].copy()
        targets[np.arange(targets.shape[1]) >= lengths[:, None]] = IGNORE_INDEX
        return targets
    return np.where(np.arange(num_steps) == lengths[:, None] - 1, targets[:, None], IGNORE_INDEX)


LOSS = "nats_per_token"
NAMES: dict[type, str] = {
    LabelsHead: "accuracy",
    MultilabelHead: "accuracy",
    ValuesHead: "mean_absolute_error",
    TokenLabelsHead: "accuracy",
    LanguageModelHead: LOSS,
}
TALLIES: dict[type, Callable[[Source, Tensors, ExampleCase], Tally]] = {
    LabelsHead: _labels,
    MultilabelHead: _multilabel,
    ValuesHead: _values,
    TokenLabelsHead: _token_labels,
    LanguageModelHead: _language_model,
}
