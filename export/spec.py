"""`spec.toml`: what a trained model from elsewhere reads and answers, and how its own tensors look.

    name = "digits"                       # of the bundle; default: the name of the file of weights
    summary = "Handwritten digits"        # one sentence for the card
    dataset = "MNIST"                     # the name of the data; default: the file of examples
    note = "70,000 images of 28 × 28"     # what the data are, one sentence for the card
    invariance = "bitwise"                # or "tolerance": answers may depend on their batch, within the tolerance
    control_flow = false                  # true admits Loop, Scan and If in the graph
    reader = { kind = "image", height = 28, width = 28, mode = "L", mean = 0.13, std = 0.31 }
    head = { kind = "labels", labels = 10 }

A reader and a head are those of the manifest (service.contract) plus the words that adapt the model's own tensors to
them; the adaptation becomes part of the graph. `input` and `output` name the model's own input and output: a parameter
of `forward`, a name in the graph; for outputs also a position. Without them the first one is meant. Paths are relative
to the folder of the spec.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, ValidationInfo, model_validator

from export.errors import validation_sentence
from service.contract.readers import CategoryColumn, Mode, Name, NumberColumn, Resize, State
from service.contract.tensors import Axes, Dtype, FrozenModel, Size
from service.manifest import ModelName

MAX_FREE = 1 << 20


def _check_range(bounds: tuple[int, int]) -> tuple[int, int]:
    low, high = bounds
    if low > high or high > MAX_FREE:
        raise ValueError(f"[{low}, {high}] is no range, expected [smallest, largest] of at most {MAX_FREE}")
    return bounds


def _check_names(members: tuple[Any, ...]) -> tuple[Any, ...]:
    names = [member if isinstance(member, str) else member.name for member in members]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"the name {repeated!r} is there twice")
    return members


Range = Annotated[tuple[Size, Size], AfterValidator(_check_range)]
# Of columns, tensors or names: each name once.
Different = AfterValidator(_check_names)
# One number, or one for each channel.
PerChannel = float | tuple[float, ...]
Activation = Literal["softmax", "sigmoid", "none"]
PIXEL_SCALE = 1 / 255


class SpecError(ValueError):
    """A spec that says something that is not understood. The message names the file, the table and the key."""


def _read_labels(value: Any, info: ValidationInfo) -> Any:
    """A number of labels is "0", "1", ...; a text is a file with one label a line."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return value
    if isinstance(value, int):
        if not 1 <= value <= 1 << 20:
            raise ValueError(f"{value} labels, expected 1 or more")
        return [str(label) for label in range(value)]
    path = _beside_spec(Path(value), info)
    return path.read_text(encoding="utf-8").splitlines()


def _beside_spec(path: Path, info: ValidationInfo) -> Path:
    folder: Path = (info.context or {}).get("folder", Path())
    if not (folder / path).is_file():
        raise ValueError(f"there is no file {folder / path}")
    return folder / path


def _check_different(labels: tuple[str, ...]) -> tuple[str, ...]:
    if repeated := next((label for label in labels if labels.count(label) > 1), None):
        raise ValueError(f"the label {repeated!r} is there twice")
    if "" in labels:
        raise ValueError(f"label {labels.index('')} is empty")
    return labels


# A list of texts, a number of labels ("0", "1", ...), or the name of a file with one label a line.
Labels = Annotated[
    tuple[str, ...], BeforeValidator(_read_labels), AfterValidator(_check_different), Field(min_length=1)
]
SpecFile = Annotated[Path, AfterValidator(_beside_spec)]
# The model's own name of an output, or its position.
Output = str | Annotated[int, Field(ge=0)] | None


class ImagePart(FrozenModel):
    """Pictures. The model gets (pixels * scale - mean) / std in float32, in this layout.

    A height or width of [min, max] is a free axis. `resize` brings pictures of any size to a fixed one. "NHWC" and
    "flat" (batch, pixels) are other layouts; "NHW" has no axis of channels.
    """

    kind: Literal["image"]
    height: Size | Range
    width: Size | Range
    mode: Mode = "RGB"
    layout: Literal["NCHW", "NHWC", "NHW", "flat"] = "NCHW"
    scale: float = PIXEL_SCALE
    mean: PerChannel = 0.0
    std: PerChannel = 1.0
    resize: Resize | None = None
    input: str | None = None

    @model_validator(mode="after")
    def _check_channels(self) -> "ImagePart":
        channels = 1 if self.mode == "L" else 3
        for key in ("mean", "std"):
            value = getattr(self, key)
            if isinstance(value, tuple) and len(value) not in {1, channels}:
                raise ValueError(f"{key} has {len(value)} numbers, expected one or {channels} for mode {self.mode}")
        stds = self.std if isinstance(self.std, tuple) else (self.std,)
        if 0 in stds:
            raise ValueError("std is 0, expected another number")
        if self.layout == "NHW" and self.mode != "L":
            raise ValueError('layout "NHW" needs mode "L", because it has no axis of channels')
        return self


class SeriesPart(FrozenModel):
    """Series of vectors, float32 in this layout (T steps, C channels).

    `lengths` and `mask` (bool [batch, steps], true where there is a step) name the model's inputs for them; by default
    the inputs "lengths" and "mask", if the model has them. A model with neither must ignore zeros behind the end.
    """

    kind: Literal["series"]
    channels: Size
    layout: Literal["NTC", "NCT", "TNC"] = "NTC"
    state: State | None = None
    input: str | None = None
    lengths: str | None = None
    mask: str | None = None


class TextPart(FrozenModel):
    """Texts as ids of `tokenizer` (a tokenizer.json). `vocabulary` is the model's number of ids, the tokenizer's own
    by default.

    `attention_mask` (int64 [batch, steps], 1 where there is a token), `token_type_ids` (zeros), `position_ids` and
    `lengths` name the model's inputs for them; by default the inputs of these names, if the model has them.
    """

    kind: Literal["text"]
    tokenizer: SpecFile = Field(default=Path("tokenizer.json"), validate_default=True)
    vocabulary: Size | None = None
    input: str | None = None
    lengths: str | None = None
    attention_mask: str | None = None
    token_type_ids: str | None = None
    position_ids: str | None = None


class TablePart(FrozenModel):
    """Rows of named columns: `numbers` float32 [batch, n] and `categories` int64 [batch, m], the two inputs in order.

    `encoding = "one-hot"` gives float32 [batch, all values] instead of indices. `join` gives the model one float32
    tensor, the numbers before the categories.
    """

    kind: Literal["table"]
    columns: Annotated[tuple[Annotated[NumberColumn | CategoryColumn, Field(discriminator="kind")], ...], Different] = (
        Field(min_length=1)
    )
    encoding: Literal["index", "one-hot"] = "index"
    join: bool = False
    numbers: str | None = None
    categories: str | None = None


class TensorPart(FrozenModel):
    """One tensor by its name; its free axes are names ("batch", "steps", "height") and bounded in [limits]."""

    name: Name
    dtype: Dtype
    shape: Axes


class TensorsPart(FrozenModel):
    """The model's own inputs, in order. Without `inputs` they are read off the graph or off the examples."""

    kind: Literal["tensors"]
    inputs: Annotated[tuple[TensorPart, ...], Different] = ()


class LabelsPart(FrozenModel):
    """One label. `activation` turns the model's output into probabilities; "sigmoid" is for one score and two labels,
    of which it is the score of the second."""

    kind: Literal["labels"]
    labels: Labels
    activation: Activation = "softmax"
    output: Output = None

    @model_validator(mode="after")
    def _check_pair(self) -> "LabelsPart":
        if self.activation == "sigmoid" and len(self.labels) != 2:
            raise ValueError(
                f'activation "sigmoid" is for two labels, not {len(self.labels)}; '
                'independent labels are kind "multilabel"'
            )
        return self


class MultilabelPart(FrozenModel):
    """Every label whose probability is at least `threshold`."""

    kind: Literal["multilabel"]
    labels: Labels
    threshold: float = Field(default=0.5, ge=0, le=1)
    activation: Literal["sigmoid", "none"] = "sigmoid"
    output: Output = None


class ValuesPart(FrozenModel):
    """Named numbers with their units; the answer is output * std + mean."""

    kind: Literal["values"]
    names: Annotated[tuple[Name, ...], Different] = Field(min_length=1)
    units: tuple[str, ...] = ()
    mean: PerChannel = 0.0
    std: PerChannel = 1.0
    output: Output = None

    @model_validator(mode="after")
    def _check_counts(self) -> "ValuesPart":
        for key in ("units", "mean", "std"):
            value = getattr(self, key)
            if isinstance(value, tuple) and len(value) not in {0, len(self.names)}:
                raise ValueError(f"{key} has {len(value)} entries, expected {len(self.names)}, one for each name")
        return self


class EmbeddingPart(FrozenModel):
    """One vector an item. `normalized` scales it to length 1; `pooling` makes it of a vector for each step."""

    kind: Literal["embedding"]
    normalized: bool = False
    pooling: Literal["none", "mean", "first"] = "none"
    output: Output = None


class TokenLabelsPart(FrozenModel):
    """One label for each token or step, of an output [batch, steps, labels]."""

    kind: Literal["token-labels"]
    labels: Labels
    activation: Literal["softmax", "none"] = "softmax"
    output: Output = None


class LanguageModelPart(FrozenModel):
    """Text after a prompt; the graph has the cache of service.contract.heads.LanguageModelHead by those names."""

    kind: Literal["language-model"]
    layers: Size
    heads: Size
    head_size: Size
    bos_id: int | None = Field(default=None, ge=0)
    eos_ids: tuple[int, ...] = ()


class ImageOutPart(FrozenModel):
    """A picture: round(output * scale) in 0 to 255. Without a height and width it has those of the picture read."""

    kind: Literal["image"]
    height: Size | None = None
    width: Size | None = None
    mode: Mode = "L"
    layout: Literal["NCHW", "NHWC", "NHW"] = "NCHW"
    scale: float = 255.0
    output: Output = None


class TensorsOutPart(FrozenModel):
    """The model's own outputs, in order. Without `outputs` they are read off the graph, or off its answers."""

    kind: Literal["tensors"]
    outputs: Annotated[tuple[TensorPart, ...], Different] = ()


ReaderPart = Annotated[ImagePart | SeriesPart | TextPart | TablePart | TensorsPart, Field(discriminator="kind")]
HeadPart = Annotated[
    LabelsPart
    | MultilabelPart
    | ValuesPart
    | EmbeddingPart
    | TokenLabelsPart
    | LanguageModelPart
    | ImageOutPart
    | TensorsOutPart,
    Field(discriminator="kind"),
]


class LimitsPart(FrozenModel):
    """`max_steps` is the longest example by default. `axes` bounds every other free axis: height = [64, 256].

    `multiple_of` says of which number the sizes of an axis must be multiples: height = 4, for a model that halves its
    pictures twice and doubles them again.
    """

    max_items: int = Field(default=64, ge=1, le=1 << 16)
    max_steps: int | None = Field(default=None, ge=1, le=1 << 20)
    axes: dict[str, Range] = Field(default_factory=dict)
    multiple_of: dict[str, Size] = Field(default_factory=dict)


class TolerancePart(FrozenModel):
    """|graph - model| <= atol + rtol * |model| in every output."""

    atol: float = Field(default=1e-5, ge=0, le=0.01)
    rtol: float = Field(default=1e-4, ge=0, le=0.01)


class Spec(FrozenModel):
    """The whole file. `factory` holds the keywords that make the module: factory(**keywords)."""

    name: ModelName | None = None
    summary: str = ""
    dataset: str = ""
    note: str = ""
    reader: ReaderPart
    head: HeadPart
    limits: LimitsPart = LimitsPart()
    tolerance: TolerancePart = TolerancePart()
    invariance: Literal["bitwise", "tolerance"] = "bitwise"
    control_flow: bool = False
    factory: dict[str, Any] = Field(default_factory=dict)


def read_spec(path: Path) -> Spec:
    """Read a spec. Raises SpecError, one sentence with the file, the table and the key."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(
            f"{path}: {error.strerror}; `python -m export inspect MODEL --output {path}` writes a first spec"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SpecError(f"{path}: no TOML: {error}") from error
    return parse_spec(content, path)


def parse_spec(content: dict[str, Any], path: Path) -> Spec:
    """The spec of these values, with paths relative to the folder of `path`. Raises SpecError."""
    try:
        return Spec.model_validate(content, context={"folder": path.parent})
    except ValidationError as error:
        raise SpecError(f"{path}: {validation_sentence(error, Spec)}") from error
