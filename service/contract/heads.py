"""Heads: how the output tensors of a graph become an answer.

A head requires some outputs by name; a graph may have others, which the Open Inference Protocol serves.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from service.contract.readers import ImageSpec, Layers, Name, Reader, SeriesReader, TextReader
from service.contract.tensors import FrozenModel, Size, Specs, float32, int64, uint8

Labels = Annotated[tuple[str, ...], Field(min_length=1)]


class LabelsHead(FrozenModel):
    """probabilities float32 [batch, labels] -> the labels of the highest scores."""

    kind: Literal["labels"] = "labels"
    labels: Labels

    def outputs(self, _reader: Reader) -> Specs:
        return (float32("probabilities", "batch", len(self.labels)),)


class MultilabelHead(FrozenModel):
    """probabilities float32 [batch, labels], independent of each other -> every label from `threshold` on."""

    kind: Literal["multilabel"] = "multilabel"
    labels: Labels
    threshold: float = Field(default=0.5, ge=0, le=1)

    def outputs(self, _reader: Reader) -> Specs:
        return (float32("probabilities", "batch", len(self.labels)),)


class ValuesHead(FrozenModel):
    """values float32 [batch, names] -> named numbers with their units ("" for none)."""

    kind: Literal["values"] = "values"
    names: tuple[Name, ...] = Field(min_length=1)
    units: tuple[str, ...]

    @model_validator(mode="after")
    def _check_units(self) -> Self:
        if len(self.units) != len(self.names) or len(set(self.names)) < len(self.names):
            raise ValueError(f"{len(self.names)} names and {len(self.units)} units; expected one unit for each name")
        return self

    def outputs(self, _reader: Reader) -> Specs:
        return (float32("values", "batch", len(self.names)),)


class EmbeddingHead(FrozenModel):
    """embedding float32 [batch, size], of length 1 if `normalized`."""

    kind: Literal["embedding"] = "embedding"
    size: Size
    normalized: bool

    def outputs(self, _reader: Reader) -> Specs:
        return (float32("embedding", "batch", self.size),)


class TokenLabelsHead(FrozenModel):
    """probabilities float32 [batch, steps, labels] -> one label per token or step; undefined beyond a row's length.

    A series reader with a state adds next_h and next_c.
    """

    kind: Literal["token-labels"] = "token-labels"
    labels: Labels

    def outputs(self, reader: Reader) -> Specs:
        state = reader.state if isinstance(reader, SeriesReader) else None
        next_state = () if state is None else state.tensors("next_h", "next_c")
        return (float32("probabilities", "batch", "steps", len(self.labels)), *next_state)


class ChatTemplate(FrozenModel):
    """A jinja2 template that turns the messages of a conversation into a prompt.

    `special_tokens` are the texts that it may name, such as bos_token.
    """

    source: str = Field(min_length=1, max_length=1 << 16)
    special_tokens: dict[str, str] = Field(default={}, max_length=64)


class LanguageModelHead(FrozenModel):
    """One graph for prefill and decode; the caller holds the key/value cache.

    ids int64 [batch, steps], past_lengths int64 [batch], past_key_I and past_value_I float32 [batch, heads, past, size]
    -> logits float32 [batch, steps, vocabulary], new_key_I and new_value_I [batch, heads, steps, size] for I < layers.
    The graph ignores past entries at or beyond a row's past_length. past_length + steps <= limits.max_steps. `heads`
    are those of keys and values. Generation ends at any of `eos_ids`. A model without a chat template answers no chats.
    """

    kind: Literal["language-model"] = "language-model"
    layers: Layers
    heads: Size
    head_size: Size
    bos_id: int | None = Field(default=None, ge=0)
    eos_ids: tuple[int, ...] = Field(default=(), max_length=64)
    chat_template: ChatTemplate | None = None

    @property
    def inputs(self) -> Specs:
        return (int64("ids", "batch", "steps"), int64("past_lengths", "batch"), *self._cache("past", "past"))

    def outputs(self, reader: Reader) -> Specs:
        assert isinstance(reader, TextReader), "a language model reads texts"
        return (float32("logits", "batch", "steps", reader.vocabulary), *self._cache("new", "steps"))

    def _cache(self, prefix: str, axis: str) -> Specs:
        parts = (f"{prefix}_{kind}_{layer}" for layer in range(self.layers) for kind in ("key", "value"))
        return tuple(float32(part, "batch", self.heads, axis, self.head_size) for part in parts)


class ImageHead(ImageSpec):
    """images uint8 [batch, height, width(, 3)]; a free height or width is that of the input.

    Of an image reader, whose input has that name already, the output is called new_images.
    """

    kind: Literal["image"] = "image"

    def outputs(self, reader: Reader) -> Specs:
        name = "new_images" if reader.kind == "image" else "images"
        return (uint8(name, "batch", *self.shape),)


class TensorsHead(FrozenModel):
    """The outputs that the manifest declares, as they are."""

    kind: Literal["tensors"] = "tensors"

    def outputs(self, _reader: Reader) -> Specs:
        return ()


Head = Annotated[
    LabelsHead
    | MultilabelHead
    | ValuesHead
    | EmbeddingHead
    | TokenLabelsHead
    | LanguageModelHead
    | ImageHead
    | TensorsHead,
    Field(discriminator="kind"),
]
