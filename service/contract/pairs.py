"""Pairs of reader and head: which make sense, which tensors they require, and which task serves them."""

from typing import Literal

from service.contract.heads import Head, ImageHead, LanguageModelHead
from service.contract.readers import Reader, SeriesReader, TensorsReader
from service.contract.tensors import Specs, float32

TaskName = Literal["classify", "sequence-predict", "generate", "predict"]
TASKS: dict[tuple[str, str], TaskName] = {
    ("image", "labels"): "classify",
    ("table", "labels"): "classify",
    ("series", "labels"): "sequence-predict",
    ("series", "token-labels"): "sequence-predict",
    ("text", "labels"): "sequence-predict",
    ("text", "token-labels"): "sequence-predict",
    ("text", "language-model"): "generate",
}


def pair_error(reader: Reader, head: Head) -> str | None:
    """Return why this reader and this head make no model, or None."""
    if head.kind == "language-model" and reader.kind != "text":
        return f"a language-model reads text, not {reader.kind}"
    if head.kind == "token-labels" and reader.kind not in {"text", "series"}:
        return f"token-labels need a text or series reader, not {reader.kind}"
    if isinstance(reader, SeriesReader) and reader.state is not None and head.kind != "token-labels":
        return f"a series reader with a state needs the head token-labels, not {head.kind}"
    if isinstance(head, ImageHead) and None in (head.height, head.width) and reader.kind != "image":
        return f"an image head of free height or width needs an image reader, not {reader.kind}"
    return None


def task_of(reader: Reader, head: Head, inputs: Specs) -> TaskName:
    """Return the task whose route serves this pair; `predict` serves every pair but a language-model."""
    if is_latent_generator(reader, head, inputs):
        return "generate"
    return TASKS.get((reader.kind, head.kind), "predict")


def required_inputs(reader: Reader, head: Head) -> Specs | None:
    """Return all inputs of the graph; None if the manifest may declare any."""
    if isinstance(head, LanguageModelHead):
        return head.inputs
    return None if isinstance(reader, TensorsReader) else reader.inputs


def is_latent_generator(reader: Reader, head: Head, inputs: Specs) -> bool:
    """Tell whether the model makes images of latents float32 [batch, size], which /generate draws from a seed."""
    if reader.kind != "tensors" or head.kind != "image" or len(inputs) != 1:
        return False
    [spec] = inputs
    return isinstance(spec.shape[-1], int) and spec == float32("latents", "batch", *spec.shape[1:2])
