"""What a manifest says, as types: the part of a bundle that people, export and service read alike.

A manifest is consistent in itself: its version is derived from its content, its task is its family's, and its tensors
are the ones that the family's parameters call for.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MODEL, MANIFEST, GOLDEN, REQUESTS, TOKENIZER, CARD = (
    "model.onnx",
    "manifest.json",
    "golden.safetensors",
    "requests.jsonl",
    "tokenizer.json",
    "card.md",
)

MODEL_NAME = "^[a-z0-9]+(-[a-z0-9]+)*$"
MAX_MODEL_NAME = 64

Task = Literal["classify", "sequence-predict", "generate"]
Dtype = Literal["uint8", "int64", "float32"]
Axes = tuple[int | str, ...]
Size = Annotated[int, Field(ge=1, le=1 << 24)]
Layers = Annotated[int, Field(ge=1, le=1 << 10)]  # bounds how many tensors a manifest can call for
Labels = Annotated[tuple[str, ...], Field(min_length=1)]
FileName = Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TensorSpec(Frozen):
    """A graph input or output. An axis is a size or, where it may vary, a name ("batch", "steps", "past")."""

    name: str
    dtype: Dtype
    shape: Axes


Specs = tuple[TensorSpec, ...]


class Image(Frozen):
    """Height and width in pixels; `mode` as Pillow names it: "L" is [height, width], "RGB" [height, width, 3]."""

    height: Size
    width: Size
    mode: Literal["L", "RGB"]

    @property
    def axes(self) -> Axes:
        return (self.height, self.width) if self.mode == "L" else (self.height, self.width, 3)


def _uint8(name: str, *shape: int | str) -> TensorSpec:
    return TensorSpec(name=name, dtype="uint8", shape=shape)


def _int64(name: str, *shape: int | str) -> TensorSpec:
    return TensorSpec(name=name, dtype="int64", shape=shape)


def _float32(name: str, *shape: int | str) -> TensorSpec:
    return TensorSpec(name=name, dtype="float32", shape=shape)


def _scores(*shape: int | str) -> Specs:
    return _float32("logits", *shape), _float32("probabilities", *shape)


class ImageClassifier(Frozen):
    """images uint8 [batch, height, width(, 3)] -> logits, probabilities float32 [batch, labels]."""

    family: Literal["image-classifier"] = "image-classifier"
    labels: Labels
    image: Image

    @property
    def inputs(self) -> Specs:
        return (_uint8("images", "batch", *self.image.axes),)

    @property
    def outputs(self) -> Specs:
        return _scores("batch", len(self.labels))


class SeriesClassifier(Frozen):
    """series float32 [batch, steps, channels], lengths int64 [batch] -> logits, probabilities [batch, labels]."""

    family: Literal["series-classifier"] = "series-classifier"
    labels: Labels
    channels: Size

    @property
    def inputs(self) -> Specs:
        return (_float32("series", "batch", "steps", self.channels), _int64("lengths", "batch"))

    @property
    def outputs(self) -> Specs:
        return _scores("batch", len(self.labels))


class SeriesTagger(Frozen):
    """As a series classifier, with state: h, c float32 [batch, layers, hidden] in, next_h, next_c out.

    logits and probabilities are [batch, steps, labels]; steps past a row's length mean nothing.
    """

    family: Literal["series-tagger"] = "series-tagger"
    labels: Labels
    channels: Size
    layers: Layers
    hidden: Size

    @property
    def inputs(self) -> Specs:
        return (_float32("series", "batch", "steps", self.channels), _int64("lengths", "batch"), *self._state("h", "c"))

    @property
    def outputs(self) -> Specs:
        return (*_scores("batch", "steps", len(self.labels)), *self._state("next_h", "next_c"))

    def _state(self, *names: str) -> Specs:
        return tuple(_float32(name, "batch", self.layers, self.hidden) for name in names)


class TextClassifier(Frozen):
    """ids int64 [batch, steps], lengths int64 [batch] -> logits, probabilities float32 [batch, labels]."""

    family: Literal["text-classifier"] = "text-classifier"
    labels: Labels
    vocabulary: Size

    @property
    def inputs(self) -> Specs:
        return (_int64("ids", "batch", "steps"), _int64("lengths", "batch"))

    @property
    def outputs(self) -> Specs:
        return _scores("batch", len(self.labels))


class LanguageModel(Frozen):
    """One graph for prefill and decode, with a key/value cache that the caller keeps.

    ids int64 [batch, steps], past_lengths int64 [batch], past_key_I and past_value_I float32 [batch, heads, past, size]
    -> logits float32 [batch, steps, vocabulary], new_key_I and new_value_I [batch, heads, steps, size] for I < layers.
    Entries of the past at or beyond a row's past_length are ignored. past_length + steps <= limits.max_steps.
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


class ImageGenerator(Frozen):
    """latents float32 [batch, latent_size] -> samples float32 in [-1, 1], images uint8, both [batch, height, width]."""

    family: Literal["image-generator"] = "image-generator"
    latent_size: Size
    image: Image

    @property
    def inputs(self) -> Specs:
        return (_float32("latents", "batch", self.latent_size),)

    @property
    def outputs(self) -> Specs:
        return (_float32("samples", "batch", *self.image.axes), _uint8("images", "batch", *self.image.axes))


Parameters = Annotated[
    ImageClassifier | SeriesClassifier | SeriesTagger | TextClassifier | LanguageModel | ImageGenerator,
    Field(discriminator="family"),
]

TASKS: Mapping[str, Task] = {
    "image-classifier": "classify",
    "series-classifier": "sequence-predict",
    "series-tagger": "sequence-predict",
    "text-classifier": "sequence-predict",
    "language-model": "generate",
    "image-generator": "generate",
}
READS_TEXT = ("text-classifier", "language-model")


class Limits(Frozen):
    """What one request may ask: items in a request, and steps (tokens) of one item where the model has such an axis."""

    max_items: int = Field(ge=1)
    max_steps: int | None = Field(default=None, ge=1)


class Tolerance(Frozen):
    """|served - reference| <= atol + rtol * |reference|; `measured` is the largest difference seen at export.

    The ceilings keep a tolerance from being wide enough to hide another model.
    """

    atol: float = Field(ge=0, le=0.01)
    rtol: float = Field(ge=0, le=0.01)
    measured: float = Field(ge=0)


Strategy = Literal["none", "minimum-batch-2", "batch-buckets", "length-buckets"]


class Invariance(Frozen):
    """Whether an item's answer depends on its batch: measured over random mates, positions, paddings and sizes.

    `strategy` is how every batch is run (service.engine.sessions.canonical_shapes), `bounds` the batch sizes or lengths
    of its buckets, ascending.
    """

    level: Literal["bitwise", "tolerance"]
    measured: float = Field(ge=0)
    how: str
    strategy: Strategy = "none"
    bounds: tuple[Size, ...] = Field(default=(), max_length=64)

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.strategy.endswith("-buckets") != bool(self.bounds):
            raise ValueError(f"{self.strategy} has {len(self.bounds)} bounds; only buckets have bounds")
        if list(self.bounds) != sorted(set(self.bounds)):
            raise ValueError(f"bounds {list(self.bounds)} do not ascend")
        return self


class File(Frozen):
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class Provenance(Frozen):
    """Where the weights come from."""

    recipe: str
    commit: str
    seed: int
    steps: int
    data: dict[str, str]  # source -> sha256
    metrics: dict[str, float]  # on the held-back test split
    versions: dict[str, str]  # torch, onnx, onnxruntime, ...
    opset: int


class Manifest(Frozen):
    """`version` is `content_version()` of all the rest."""

    format_version: Literal[1] = 1
    name: str = Field(pattern=MODEL_NAME, max_length=MAX_MODEL_NAME)
    version: str = Field(pattern="^[0-9a-f]{12}$")
    task: Task
    summary: str
    inputs: Specs
    outputs: Specs
    parameters: Parameters
    limits: Limits
    tolerance: dict[str, Tolerance]  # one for each output
    invariance: Invariance
    files: dict[FileName, File]
    provenance: Provenance

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.task != TASKS[self.parameters.family]:
            raise ValueError(
                f"task is {self.task!r}, a {self.parameters.family} serves {TASKS[self.parameters.family]!r}"
            )
        for side in ("inputs", "outputs"):
            declared, called_for = set(getattr(self, side)), set(getattr(self.parameters, side))
            odd = sorted({spec.name for spec in declared ^ called_for})
            if odd or len(getattr(self, side)) != len(called_for):
                raise ValueError(f"{side} are not those of this {self.parameters.family}: they differ in {odd}")
        unpaired = {output.name for output in self.outputs} ^ set(self.tolerance)
        if unpaired:
            raise ValueError(f"outputs and tolerances differ in {sorted(unpaired)}")
        self._check_bounds()
        needed = {MODEL, GOLDEN, REQUESTS} | ({TOKENIZER} if self.parameters.family in READS_TEXT else set())
        if needed - set(self.files):
            raise ValueError(f"files lack {sorted(needed - set(self.files))}")
        return self

    def _check_bounds(self) -> None:
        if self.invariance.strategy == "length-buckets":
            if "lengths" not in {spec.name for spec in self.inputs} or self.limits.max_steps is None:
                raise ValueError("length-buckets needs a model with lengths and max_steps")
            if self.invariance.bounds[-1] < self.limits.max_steps:
                raise ValueError(
                    f"length-buckets end at {self.invariance.bounds[-1]}, max_steps is {self.limits.max_steps}"
                )

    @classmethod
    def sealed(cls, **fields: Any) -> Self:
        """Make a manifest whose version is derived from its content."""
        draft = cls(version="0" * 12, **fields)
        return draft.model_copy(update={"version": draft.content_version()})

    def content_version(self) -> str:
        """First 12 hex digits of the sha256 over the canonical JSON of everything but the version.

        A strategy of "none" is left out: a manifest from before there were strategies keeps its version.
        """
        content = self.model_dump(mode="json", exclude={"version"})
        if self.invariance.strategy == "none":
            del content["invariance"]["strategy"], content["invariance"]["bounds"]
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    def to_json(self) -> str:
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
