"""The interface of a graph: the names, types and axes of its inputs and outputs, and its family's parameters.

The trained run is the only source of the interface, so the manifest cannot contradict the model.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from service.families import (
    ImageClassifier,
    ImageGenerator,
    ImageSpec,
    LanguageModel,
    Parameters,
    SeriesClassifier,
    SeriesTagger,
    TensorSpec,
    TextClassifier,
)
from training.checkpoint import Run

Axes = tuple[int | str, ...]


@dataclass(frozen=True, kw_only=True)
class Interface:
    """Inputs and outputs are in the order of the graph."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    parameters: Parameters


def read_interface(run: Run) -> Interface:
    """The interface of the graph that is exported for this run."""
    return BY_FAMILY[run.recipe.family](run)


def _image_classifier(run: Run) -> Interface:
    labels, (height, width, *channels) = run.checkpoint.labels, run.test.inputs["images"].shape[1:]
    image = ImageSpec(height=height, width=width, mode="RGB" if channels else "L")
    return Interface(
        inputs=(TensorSpec(name="images", dtype="uint8", shape=("batch", height, width, *channels)),),
        outputs=_scores("batch", len(labels)),
        parameters=ImageClassifier(labels=labels, image=image),
    )


def _series_classifier(run: Run) -> Interface:
    labels, channels = run.checkpoint.labels, run.test.inputs["series"].shape[2]
    return Interface(
        inputs=_series(channels),
        outputs=_scores("batch", len(labels)),
        parameters=SeriesClassifier(labels=labels, channels=channels),
    )


def _series_tagger(run: Run) -> Interface:
    labels, channels = run.checkpoint.labels, run.test.inputs["series"].shape[2]
    model: Any = run.model
    layers, hidden = model.ragged.rnn.num_layers, model.ragged.rnn.hidden_size
    state: Axes = ("batch", layers, hidden)
    return Interface(
        inputs=(*_series(channels), _float("h", state), _float("c", state)),
        outputs=(*_scores("batch", "steps", len(labels)), _float("next_h", state), _float("next_c", state)),
        parameters=SeriesTagger(labels=labels, channels=channels, layers=layers, hidden=hidden),
    )


def _text_classifier(run: Run) -> Interface:
    labels = run.checkpoint.labels
    vocabulary = next(module for module in run.model.modules() if isinstance(module, nn.Embedding)).num_embeddings
    return Interface(
        inputs=(_ids(), TensorSpec(name="lengths", dtype="int64", shape=("batch",))),
        outputs=_scores("batch", len(labels)),
        parameters=TextClassifier(labels=labels, vocabulary=vocabulary),
    )


def _language_model(run: Run) -> Interface:
    model: Any = run.model
    layers, vocabulary = list(model.encoder.layers), model.head.out_features
    heads, size = layers[0].self_attn.num_heads, layers[0].self_attn.head_dim
    pairs = [f"{part}_{index}" for index in range(len(layers)) for part in ("key", "value")]
    past = tuple(_float(f"past_{pair}", ("batch", heads, "past", size)) for pair in pairs)
    new = tuple(_float(f"new_{pair}", ("batch", heads, "steps", size)) for pair in pairs)
    return Interface(
        inputs=(_ids(), TensorSpec(name="past_lengths", dtype="int64", shape=("batch",)), *past),
        outputs=(_float("logits", ("batch", "steps", vocabulary)), *new),
        parameters=LanguageModel(vocabulary=vocabulary, layers=len(layers), heads=heads, head_size=size),
    )


def _image_generator(run: Run) -> Interface:
    generator: Any = run.model.generator
    latent_size = next(layer for layer in generator.modules() if isinstance(layer, nn.Linear)).in_features
    with torch.no_grad():
        height, width = generator(torch.zeros(1, latent_size)).shape[1:]
    return Interface(
        inputs=(_float("latents", ("batch", latent_size)),),
        outputs=(
            _float("samples", ("batch", height, width)),
            TensorSpec(name="images", dtype="uint8", shape=("batch", height, width)),
        ),
        parameters=ImageGenerator(latent_size=latent_size, image=ImageSpec(height=height, width=width, mode="L")),
    )


def _float(name: str, shape: Axes) -> TensorSpec:
    return TensorSpec(name=name, dtype="float32", shape=shape)


def _ids() -> TensorSpec:
    return TensorSpec(name="ids", dtype="int64", shape=("batch", "steps"))


def _series(channels: int) -> tuple[TensorSpec, ...]:
    lengths = TensorSpec(name="lengths", dtype="int64", shape=("batch",))
    return _float("series", ("batch", "steps", channels)), lengths


def _scores(*shape: int | str) -> tuple[TensorSpec, ...]:
    return _float("logits", shape), _float("probabilities", shape)


BY_FAMILY = {
    "image-classifier": _image_classifier,
    "series-classifier": _series_classifier,
    "series-tagger": _series_tagger,
    "text-classifier": _text_classifier,
    "language-model": _language_model,
    "image-generator": _image_generator,
}
