"""Evaluation of a predictor on a split; the predictor may be a PyTorch model or an ONNX session."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from training.batches import batch_tensors, sequential_batches
from training.families import FAMILIES
from training.recipe import FamilyName, Split

Predictor = Callable[[dict[str, Tensor]], Mapping[str, Tensor]]


def evaluate(family: FamilyName, predict: Predictor, split: Split, *, batch_size: int = 256) -> dict[str, float]:
    """The family's scores, averaged over the split; {} for a family without scores.

    `nats_per_character` is added for a language model whose split has its text.
    """
    (scores,) = evaluate_each(family, [predict], split, batch_size=batch_size)
    return scores


def evaluate_each(
    family: FamilyName, predictors: Sequence[Predictor], split: Split, *, batch_size: int = 256
) -> list[dict[str, float]]:
    """The scores of several predictors; each batch goes to all of them in turn."""
    score = FAMILIES[family].scores
    if score is None:
        return [{} for _ in predictors]
    sums: list[dict[str, float]] = [{} for _ in predictors]
    counts: dict[str, int] = {}
    for batch in sequential_batches(split, batch_size):
        inputs, targets = batch_tensors(split, batch)
        for number, predict in enumerate(predictors):
            for name, (total, count) in score(predict(inputs), inputs, targets).items():
                sums[number][name] = sums[number].get(name, 0.0) + total
                if number == 0:
                    counts[name] = counts.get(name, 0) + count
    results = [{name: total / counts[name] for name, total in each.items()} for each in sums]
    if family == "language-model" and split.texts:
        for each, scores in zip(sums, results, strict=True):
            scores["nats_per_character"] = each["loss"] / sum(len(text) for text in split.texts)
    return results


def model_predictor(family: FamilyName, model: Any, device: torch.device) -> Predictor:
    """A predictor that runs `model` on `device` and returns float32 tensors on the CPU."""

    def predict(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        device_inputs = {name: tensor.to(device) for name, tensor in inputs.items()}
        return {name: tensor.float().cpu() for name, tensor in FAMILIES[family].predict(model, device_inputs).items()}

    return predict
