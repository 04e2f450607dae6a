"""Measuring a model on a split, whoever computes its answers: PyTorch, or a session on the exported graph."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from training.batches import in_order, take
from training.families import FAMILIES
from training.recipe import FamilyName, Split

Answer = Callable[[dict[str, Tensor]], Mapping[str, Tensor]]


def measure(family: FamilyName, answer: Answer, split: Split, *, batch_size: int = 256) -> dict[str, float]:
    """The family's scores, each the mean over the split, and `nats_per_character` where the split knows its text."""
    score = FAMILIES[family].scores
    if score is None:
        return {}
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    for batch in in_order(split, batch_size):
        inputs, targets = take(split, batch)
        outputs = answer(inputs)
        for name, (total, count) in score(outputs, inputs, targets).items():
            sums[name] = sums.get(name, 0.0) + total
            counts[name] = counts.get(name, 0) + count
    scores = {name: sums[name] / counts[name] for name in sums}
    if family == "language-model" and split.texts:
        scores["nats_per_character"] = sums["loss"] / sum(len(text) for text in split.texts)
    return scores


def on_device(family: FamilyName, model: Any, device: torch.device) -> Answer:
    """The model's own answers, computed on `device` and brought back."""

    def answer(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        there = {name: tensor.to(device) for name, tensor in inputs.items()}
        return {name: tensor.float().cpu() for name, tensor in FAMILIES[family].answer(model, there).items()}

    return answer
