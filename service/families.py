"""The six model families: the tensors of their graphs, derived from a few parameters each.

A family's parameters determine its inputs and outputs completely, so a manifest cannot declare other tensors.
"""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

TaskName = Literal["classify", "sequence-predict", "generate"]
Dtype = Literal["uint8", "int64", "float32"]
Axes = tuple[int | str, ...]
Size = Annotated[int, Field(ge=1, le=1 << 24)]
# The bound limits how many tensors one manifest can declare.
Layers = Annotated[int, Field(ge=1, le=1 << 10)]
Labels = Annotated[tuple[str, ...], Field(min_length=1)]


class FrozenModel(BaseModel):
    """An immutable value that rejects unknown fields, NaN and infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TensorSpec(FrozenModel):
    """A graph input or output; a fixed axis is a size, a variable axis a name ("batch", "steps", "past")."""

    name: str
    dtype: Dtype
    shape: Axes


Specs = tuple[TensorSpec, ...]


class ImageSpec(FrozenModel):
    """Height and width in pixels, and the Pillow mode: "L" is [height, width], "RGB" is [height, width, 3]."""

    height: Size
    width: Size
    mode: Literal["L", "RGB"]

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.height, self.width) if self.mode == "L" else (self.height, self.width, 3)


def _tensor(dtype: Dtype, name: str, *shape: int | str) -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=shape)


_uint8, _int64, _float32 = partial(_tensor, "uint8"), partial(_tensor, "int64"), partial(_tensor, "float32")


class Classifier(FrozenModel):
    """The families that score labels: logits and probabilities, both float32 [batch, labels]."""

    family: str
    labels: Labels

    @property
    def outputs(self) -> Specs:
        return self._scores("batch")

    def _scores(self, *axes: str) -> Specs:
        return tuple(_float32(name, *axes, len(self.labels)) for name in ("logits", "probabilities"))


class ImageClassifier(Classifier):
    """images uint8 [batch, height, width(, 3)] -> logits, probabilities float32 [batch, labels]."""

    family: Literal["image-classifier"] = "image-classifier"
    image: ImageSpec

    @property
    def inputs(self) -> Specs:
        return (_uint8("images", "batch", *self.image.shape),)


class SeriesClassifier(Classifier):
    """series float32 [batch, steps, channels], lengths int64 [batch] -> logits, probabilities [batch, labels]."""

    family: Literal["series-classifier"] = "series-classifier"
    channels: Size

    @property
    def inputs(self) -> Specs:
        return (_float32("series", "batch", "steps", self.channels), _int64("lengths", "batch"))


class SeriesTagger(Classifier):
    """A series classifier with state: inputs h, c and outputs next_h, next_c, all float32 [batch, layers, hidden].

    logits and probabilities are [batch, steps, labels]; values beyond a row's length are undefined.
    """

    family: Literal["series-tagger"] = "series-tagger"
    channels: Size
    layers: Layers
    hidden: Size

    @property
    def inputs(self) -> Specs:
        return (_float32("series", "batch", "steps", self.channels), _int64("lengths", "batch"), *self._state("h", "c"))

    @property
    def outputs(self) -> Specs:
        return (*self._scores("batch", "steps"), *self._state("next_h", "next_c"))

    def _state(self, *names: str) -> Specs:
        return tuple(_float32(name, "batch", self.layers, self.hidden) for name in names)


class TextClassifier(Classifier):
    """ids int64 [batch, steps], lengths int64 [batch] -> logits, probabilities float32 [batch, labels]."""

    family: Literal["text-classifier"] = "text-classifier"
    vocabulary: Size

    @property
    def inputs(self) -> Specs:
        return (_int64("ids", "batch", "steps"), _int64("lengths", "batch"))


class LanguageModel(FrozenModel):
    """One graph for prefill and decode; the caller holds the key/value cache.

    ids int64 [batch, steps], past_lengths int64 [batch], past_key_I and past_value_I float32 [batch, heads, past, size]
    -> logits float32 [batch, steps, vocabulary], new_key_I and new_value_I [batch, heads, steps, size] for I < layers.
    The graph ignores past entries at or beyond a row's past_length. past_length + steps <= limits.max_steps.
    """

    family: Literal["language-model"] = "language-model"
    vocabulary: Size
    layers: Layers
    heads: Size
    head_size: Size

    @property
    def inputs(self) -> Specs:
        return (_int64("ids", "batch", "steps"), _int64("past_lengths", "batch"), *self._cache("past", "past"))

    @property
    def outputs(self) -> Specs:
        return (_float32("logits", "batch", "steps", self.vocabulary), *self._cache("new", "steps"))

    def _cache(self, prefix: str, axis: str) -> Specs:
        parts = (f"{prefix}_{kind}_{layer}" for layer in range(self.layers) for kind in ("key", "value"))
        return tuple(_float32(part, "batch", self.heads, axis, self.head_size) for part in parts)


class ImageGenerator(FrozenModel):
    """latents float32 [batch, latent_size] -> samples float32 in [-1, 1], images uint8, both [batch, height, width]."""

    family: Literal["image-generator"] = "image-generator"
    latent_size: Size
    image: ImageSpec

    @property
    def inputs(self) -> Specs:
        return (_float32("latents", "batch", self.latent_size),)

    @property
    def outputs(self) -> Specs:
        return (_float32("samples", "batch", *self.image.shape), _uint8("images", "batch", *self.image.shape))


Parameters = Annotated[
    ImageClassifier | SeriesClassifier | SeriesTagger | TextClassifier | LanguageModel | ImageGenerator,
    Field(discriminator="family"),
]

TASK_OF_FAMILY: Mapping[str, TaskName] = {
    "image-classifier": "classify",
    "series-classifier": "sequence-predict",
    "series-tagger": "sequence-predict",
    "text-classifier": "sequence-predict",
    "language-model": "generate",
    "image-generator": "generate",
}
