"""The contract of a run: its reader and head, and the names, types and axes of its graph's inputs and outputs.

The trained run is the only source of the contract, so the manifest cannot contradict the model.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from export.errors import ExportError
from service.contract.heads import Head, ImageHead, LabelsHead, LanguageModelHead, TokenLabelsHead
from service.contract.pairs import required_inputs
from service.contract.readers import ImageReader, Reader, SeriesReader, State, TensorsReader, TextReader
from service.contract.tensors import Specs, float32
from training.checkpoint import Run
from training.families import FAMILIES


@dataclass(frozen=True, kw_only=True)
class Interface:
    """Inputs and outputs are in the order of the graph."""

    reader: Reader
    head: Head
    inputs: Specs
    outputs: Specs


def read_interface(run: Run) -> Interface:
    """The interface of the graph that is exported for this run."""
    return BY_FAMILY[run.recipe.family](run)


def _interface(reader: Reader, head: Head, *, extra: Specs = (), inputs: Specs | None = None) -> Interface:
    inputs = required_inputs(reader, head) or inputs
    assert inputs is not None
    return Interface(reader=reader, head=head, inputs=inputs, outputs=(*extra, *head.outputs(reader)))


def _image_classifier(run: Run) -> Interface:
    labels, (height, width, *channels) = run.checkpoint.labels, run.test.inputs["images"].shape[1:]
    reader = ImageReader(height=height, width=width, mode="RGB" if channels else "L")
    return _interface(reader, LabelsHead(labels=labels), extra=(float32("logits", "batch", len(labels)),))


def _series_classifier(run: Run) -> Interface:
    labels, channels = run.checkpoint.labels, run.test.inputs["series"].shape[2]
    extra = (float32("logits", "batch", len(labels)),)
    return _interface(SeriesReader(channels=channels), LabelsHead(labels=labels), extra=extra)


def _series_tagger(run: Run) -> Interface:
    labels, channels = run.checkpoint.labels, run.test.inputs["series"].shape[2]
    model: Any = run.model
    state = State(layers=model.ragged.rnn.num_layers, hidden=model.ragged.rnn.hidden_size)
    extra = (float32("logits", "batch", "steps", len(labels)),)
    return _interface(SeriesReader(channels=channels, state=state), TokenLabelsHead(labels=labels), extra=extra)


def _text_classifier(run: Run) -> Interface:
    labels = run.checkpoint.labels
    extra = (float32("logits", "batch", len(labels)),)
    return _interface(TextReader(vocabulary=_vocabulary(run)), LabelsHead(labels=labels), extra=extra)


def _vocabulary(run: Run) -> int:
    """The rows of the embedding that the ids reach, the smallest of several; others hold positions, say.

    Raises ExportError if the ids reach none.
    """
    inputs = {name: torch.from_numpy(array[:1]) for name, array in run.test.inputs.items()}
    reached: list[int] = []

    def record(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        if isinstance(module, nn.Embedding) and arguments and arguments[0].data_ptr() == inputs["ids"].data_ptr():
            reached.append(module.num_embeddings)

    hooks = [module.register_forward_pre_hook(record) for module in run.model.modules()]
    FAMILIES[run.recipe.family].predict(run.model, inputs)
    for hook in hooks:
        hook.remove()
    if not reached:
        raise ExportError(
            "manifest",
            "the token ids reach no nn.Embedding, so the size of the vocabulary is unknown; embed them with one",
        )
    return min(reached)


def _language_model(run: Run) -> Interface:
    model: Any = run.model
    layers, vocabulary = list(model.encoder.layers), model.head.out_features
    heads, size = layers[0].self_attn.num_heads, layers[0].self_attn.head_dim
    return _interface(
        TextReader(vocabulary=vocabulary), LanguageModelHead(layers=len(layers), heads=heads, head_size=size)
    )


def _image_generator(run: Run) -> Interface:
    generator: Any = run.model.generator
    latent_size = next(layer for layer in generator.modules() if isinstance(layer, nn.Linear)).in_features
    with torch.no_grad():
        height, width = generator(torch.zeros(1, latent_size)).shape[1:]
    return _interface(
        TensorsReader(),
        ImageHead(height=height, width=width, mode="L"),
        extra=(float32("samples", "batch", height, width),),
        inputs=(float32("latents", "batch", latent_size),),
    )


BY_FAMILY = {
    "image-classifier": _image_classifier,
    "series-classifier": _series_classifier,
    "series-tagger": _series_tagger,
    "text-classifier": _text_classifier,
    "language-model": _language_model,
    "image-generator": _image_generator,
}
