"""Model families: the inputs, outputs, loss and scores of each.

`Family.predict` on a model in eval mode is the reference for export and tests. Its results have the names and shapes of
the exported graph's outputs, except that a language model returns `logits` alone: only the graph has a cache.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from training.recipe import IGNORE_INDEX, FamilyName

Inputs = Mapping[str, Tensor]

# Scores are (sum, count), so that they can be added over batches.
Scores = dict[str, tuple[float, int]]


@dataclass(frozen=True, kw_only=True)
class Family:
    """`metric` is the score that selects the best weights; an image generator has no loss and no scores."""

    task: Literal["classify", "sequence-predict", "generate"]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    forward: Callable[[nn.Module, Inputs], dict[str, Tensor]]
    loss: Callable[[nn.Module, Inputs, Tensor, float], Tensor] | None = None  # (model, inputs, targets, smoothing)
    scores: Callable[[Inputs, Inputs, Tensor], Scores] | None = None  # (outputs, inputs, targets)
    metric: Literal["accuracy", "loss"] | None = None

    def predict(self, model: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
        """The outputs of a model in eval mode for raw inputs, computed in the dtype of its weights."""
        dtype = next(model.parameters()).dtype
        with torch.no_grad():
            return self.forward(
                model, {name: x.to(dtype) if x.is_floating_point() else x for name, x in inputs.items()}
            )


def _with_probabilities(logits: Tensor) -> dict[str, Tensor]:
    return {"logits": logits, "probabilities": logits.softmax(-1)}


def _image_arguments(inputs: Inputs) -> tuple[Tensor, ...]:
    return (inputs["images"],)


def _series_arguments(inputs: Inputs) -> tuple[Tensor, ...]:
    return inputs["series"], inputs["lengths"]


def _text_arguments(inputs: Inputs) -> tuple[Tensor, ...]:
    return inputs["ids"], inputs["lengths"]


def _classifier(
    task: Literal["classify", "sequence-predict"],
    inputs: tuple[str, ...],
    arguments: Callable[[Inputs], tuple[Tensor, ...]],
) -> Family:
    def forward(model: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
        return _with_probabilities(model(*arguments(inputs)))

    def loss(model: nn.Module, inputs: Inputs, targets: Tensor, smoothing: float) -> Tensor:
        return cross_entropy(model(*arguments(inputs)), targets, label_smoothing=smoothing)

    def scores(outputs: Inputs, _inputs: Inputs, targets: Tensor) -> Scores:
        logits = outputs["logits"]
        return {
            "loss": (cross_entropy(logits, targets, reduction="sum").item(), len(targets)),
            "accuracy": ((logits.argmax(-1) == targets).sum().item(), len(targets)),
        }

    outputs = ("logits", "probabilities")
    return Family(
        task=task, inputs=inputs, outputs=outputs, forward=forward, loss=loss, scores=scores, metric="accuracy"
    )


def with_initial_state(model: nn.Module, inputs: Inputs) -> Inputs:
    """The inputs of a tagger; a missing state is the zero state in which a sequence starts."""
    if "h" in inputs:
        return inputs
    ragged: Any = model.ragged
    rnn = ragged.rnn
    series = inputs["series"]
    zeros = torch.zeros(len(series), rnn.num_layers, rnn.hidden_size, dtype=series.dtype, device=series.device)
    return {**inputs, "h": zeros, "c": zeros}


def _tagger_forward(model: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
    inputs = with_initial_state(model, inputs)
    logits, next_h, next_c = model(inputs["series"], inputs["lengths"], inputs["h"], inputs["c"])
    return {**_with_probabilities(logits), "next_h": next_h, "next_c": next_c}


def _step_targets(inputs: Inputs, targets_B: Tensor) -> Tensor:
    """The row's target at each of its steps and IGNORE_INDEX after its end: int64 [batch, steps]."""
    steps_T = torch.arange(inputs["series"].shape[1], device=targets_B.device)
    padding_BT = steps_T >= inputs["lengths"][:, None]
    return targets_B[:, None].expand_as(padding_BT).masked_fill(padding_BT, IGNORE_INDEX)


def _tagger_loss(model: nn.Module, inputs: Inputs, targets_B: Tensor, smoothing: float) -> Tensor:
    logits_BTC = _tagger_forward(model, inputs)["logits"]
    return cross_entropy(
        logits_BTC.flatten(0, 1), _step_targets(inputs, targets_B).flatten(), label_smoothing=smoothing
    )


def _tagger_scores(outputs: Inputs, inputs: Inputs, targets_B: Tensor) -> Scores:
    """`accuracy` counts the last step of each row, `step_accuracy` counts all steps."""
    logits_BTC, steps_BT = outputs["logits"], _step_targets(inputs, targets_B)
    correct_BT = logits_BTC.argmax(-1) == steps_BT
    num_steps = int((steps_BT != IGNORE_INDEX).sum())
    last_B = correct_BT.gather(1, inputs["lengths"][:, None] - 1)
    loss = cross_entropy(logits_BTC.flatten(0, 1), steps_BT.flatten(), reduction="sum").item()
    return {
        "loss": (loss, num_steps),
        "accuracy": (last_B.sum().item(), len(targets_B)),
        "step_accuracy": (correct_BT.sum().item(), num_steps),
    }


def _language_forward(model: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
    return {"logits": model(inputs["ids"])}


def _language_loss(model: nn.Module, inputs: Inputs, targets_BT: Tensor, smoothing: float) -> Tensor:
    return cross_entropy(model(inputs["ids"]).flatten(0, 1), targets_BT.flatten(), label_smoothing=smoothing)


def _language_scores(outputs: Inputs, _inputs: Inputs, targets_BT: Tensor) -> Scores:
    logits_BTV = outputs["logits"]
    num_tokens = int((targets_BT != IGNORE_INDEX).sum())
    loss = cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten(), reduction="sum").item()
    return {"loss": (loss, num_tokens), "accuracy": ((logits_BTV.argmax(-1) == targets_BT).sum().item(), num_tokens)}


def _generator_forward(model: Any, inputs: Inputs) -> dict[str, Tensor]:
    samples = model.generator(inputs["latents"])
    return {"samples": samples, "images": ((samples + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)}


FAMILIES: dict[FamilyName, Family] = {
    "image-classifier": _classifier("classify", ("images",), _image_arguments),
    "series-classifier": _classifier("sequence-predict", ("series", "lengths"), _series_arguments),
    "text-classifier": _classifier("sequence-predict", ("ids", "lengths"), _text_arguments),
    "series-tagger": Family(
        task="sequence-predict",
        inputs=("series", "lengths", "h", "c"),
        outputs=("logits", "probabilities", "next_h", "next_c"),
        forward=_tagger_forward,
        loss=_tagger_loss,
        scores=_tagger_scores,
        metric="accuracy",
    ),
    "language-model": Family(
        task="generate",
        inputs=("ids",),
        outputs=("logits",),
        forward=_language_forward,
        loss=_language_loss,
        scores=_language_scores,
        metric="loss",
    ),
    "image-generator": Family(
        task="generate",
        inputs=("latents",),
        outputs=("samples", "images"),
        forward=_generator_forward,
    ),
}
