"""Heads as modules: what somebody's model returns becomes the canonical tensors of a head.

Each module takes the chosen output and the canonical inputs, and returns the outputs of the graph in the order of
`names`. A classifier keeps its own output, `logits`, beside the probabilities.

Shapes: B batch, T steps, L labels.
"""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from export.sources.module.inputs import step_mask
from export.spec import (
    EmbeddingPart,
    ImageOutPart,
    LabelsPart,
    MultilabelPart,
    Output,
    Spec,
    TensorsOutPart,
    TokenLabelsPart,
    ValuesPart,
)

Outputs = dict[str, Tensor]


class Probabilities(nn.Module):
    """Scores -> logits and probabilities; without an activation the output is the probabilities.

    A sigmoid of one score for two labels is the probability of the second.
    """

    def __init__(self, activation: str, *, is_pair: bool = False) -> None:
        super().__init__()
        self.activation, self.is_pair = activation, is_pair

    def forward(self, output: Tensor, _inputs: Mapping[str, Tensor]) -> Outputs:
        if self.activation == "none":
            return {"probabilities": output}
        if self.is_pair:
            score_B1 = output.reshape(-1, 1)
            logits_BL = torch.cat([torch.zeros_like(score_B1), score_B1], 1)
            return {"logits": logits_BL, "probabilities": torch.cat([-score_B1, score_B1], 1).sigmoid()}
        return {
            "logits": output,
            "probabilities": output.sigmoid() if self.activation == "sigmoid" else output.softmax(-1),
        }


class Values(nn.Module):
    """output * std + mean, [B] as [B, 1]."""

    mean: Tensor
    std: Tensor

    def __init__(self, part: ValuesPart) -> None:
        super().__init__()
        self.is_scaled = (part.mean, part.std) != (0.0, 1.0)
        for key in ("mean", "std") if self.is_scaled else ():
            self.register_buffer(key, torch.tensor(getattr(part, key), dtype=torch.float32).reshape(-1))

    def forward(self, output: Tensor, _inputs: Mapping[str, Tensor]) -> Outputs:
        values = output.unsqueeze(1) if output.dim() == 1 else output
        return {"values": values * self.std + self.mean if self.is_scaled else values}


class Embedding(nn.Module):
    """One vector an item: of all steps if pooled, of length 1 if normalised."""

    def __init__(self, part: EmbeddingPart) -> None:
        super().__init__()
        self.pooling, self.normalized = part.pooling, part.normalized

    def forward(self, output: Tensor, inputs: Mapping[str, Tensor]) -> Outputs:
        if self.pooling == "first":
            output = output[:, 0]
        elif self.pooling == "mean":
            mask_BT1 = step_mask(output, inputs["lengths"]).unsqueeze(-1)
            output = torch.where(mask_BT1, output, 0.0).sum(1) / mask_BT1.sum(1)
        return {"embedding": nn.functional.normalize(output, dim=-1) if self.normalized else output}


class Image(nn.Module):
    """Numbers -> pixels uint8 [B, H, W] or [B, H, W, 3], under the `name` of the contract."""

    def __init__(self, part: ImageOutPart, name: str) -> None:
        super().__init__()
        self.name = name
        self.layout, self.scale, self.is_grey = part.layout, part.scale, part.mode == "L"

    def forward(self, output: Tensor, _inputs: Mapping[str, Tensor]) -> Outputs:
        pixels = (output * self.scale).round().clamp(0, 255).to(torch.uint8)
        if self.layout == "NCHW":
            pixels = pixels.permute(0, 2, 3, 1)
        return {self.name: pixels.squeeze(-1) if self.is_grey and self.layout != "NHW" else pixels}


class Tensors(nn.Module):
    """An output as it is."""

    def forward(self, output: Tensor, _inputs: Mapping[str, Tensor]) -> Outputs:
        return {"output": output}


def build_output(spec: Spec) -> nn.Module:
    """The module for the head of `spec`. Raises ValueError for a head that no module serves."""
    part: Any = spec.head
    match part:
        case LabelsPart():
            return Probabilities(part.activation, is_pair=part.activation == "sigmoid")
        case MultilabelPart() | TokenLabelsPart():
            return Probabilities(part.activation)
        case ValuesPart():
            return Values(part)
        case EmbeddingPart():
            return Embedding(part)
        case ImageOutPart():
            # The input of an image reader has the name "images" already.
            return Image(part, "new_images" if spec.reader.kind == "image" else "images")
        case TensorsOutPart():
            return Tensors()
    raise ValueError(
        "[head] kind is 'language-model', whose cache a module does not have; "
        "a saved transformers model comes in by `python -m export hf`"
    )


def flatten(outputs: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor that a model returns, with its name, in order; a position is a name, too."""
    if isinstance(outputs, Tensor):
        yield name or "0", outputs
        return
    parts: list[tuple[str, Any]] = []
    if isinstance(outputs, Mapping):
        parts = [(str(key), value) for key, value in outputs.items()]
    elif is_dataclass(outputs):
        parts = [(field.name, getattr(outputs, field.name)) for field in fields(outputs)]
    elif isinstance(outputs, tuple) and hasattr(outputs, "_fields"):
        parts = list(zip(outputs._fields, outputs, strict=True))
    elif isinstance(outputs, tuple | list):
        parts = [(str(i), value) for i, value in enumerate(outputs)]
    elif outputs is not None:
        raise ValueError(f"the model returns {type(outputs).__name__}, expected tensors, or tuples or dicts of them")
    for key, value in parts:
        yield from flatten(value, f"{name}.{key}" if name else key)


def choose(outputs: Mapping[str, Tensor], chosen: Output) -> Tensor:
    """The output of this name or position, the first by default. Raises ValueError if there is none."""
    names = list(outputs)
    if isinstance(chosen, str) and chosen in outputs:
        return outputs[chosen]
    if chosen is None or (isinstance(chosen, int) and chosen < len(names)):
        return outputs[names[chosen or 0]]
    raise ValueError(f"[head] output is {chosen!r}, but the model returns {', '.join(names)}")
