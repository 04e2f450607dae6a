"""Readers: how the payload of a request becomes the input tensors of a graph.

A reader determines the inputs of its graph completely, except `tensors`, whose inputs are those that the manifest
declares. Whatever a model called its inputs before, export adapts the graph to these.
"""

from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from service.contract.tensors import Axes, FrozenModel, Size, Specs, TensorSpec, float32, int64, uint8

Mode = Literal["L", "RGB"]
MAX_FLOAT32 = 3.4028234663852886e38
# The bound limits how many tensors one manifest can declare.
Layers = Annotated[int, Field(ge=1, le=1 << 10)]
Name = Annotated[str, Field(min_length=1, max_length=200)]


class Resize(FrozenModel):
    """How a picture of any size gets the size of the reader: scaled by Pillow, then cut out of its centre.

    `size` is [height, width], or the shortest edge, which keeps the aspect ratio and needs a `crop` of
    [height, width]. `resample` is the name of a Pillow filter. Where a margin is odd, the crop begins at its half as
    `halves` says: rounded to an even number, as torchvision does it, or down, as transformers does.
    """

    size: tuple[Size, Size] | None = None
    shortest_edge: Size | None = None
    crop: tuple[Size, Size] | None = None
    resample: Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"] = "bilinear"
    halves: Literal["even", "down"] = "even"

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        if (self.size is None) == (self.shortest_edge is None):
            raise ValueError("resize needs either size or shortest_edge")
        if self.shortest_edge is not None and self.crop is None:
            raise ValueError("resize by shortest_edge needs a crop, because pictures differ in aspect ratio")
        scaled = self.size or (self.shortest_edge or 0,) * 2
        if self.crop is not None and (self.crop[0] > scaled[0] or self.crop[1] > scaled[1]):
            raise ValueError(f"resize crops {list(self.crop)} out of {list(scaled)}")
        return self

    @property
    def result(self) -> tuple[int, int]:
        """Height and width of every picture afterwards."""
        result = self.crop or self.size
        assert result is not None, "the validator demands one of them"
        return result


class ImageSpec(FrozenModel):
    """Height and width in pixels, and the Pillow mode: "L" is [height, width], "RGB" is [height, width, 3].

    A height or width of None is a free axis; `limits.axes` bounds it.
    """

    height: Size | None
    width: Size | None
    mode: Mode

    @property
    def shape(self) -> Axes:
        axes: Axes = (self.height or "height", self.width or "width")
        return axes if self.mode == "L" else (*axes, 3)

    @cached_property
    def has_one_size(self) -> bool:
        """Whether pictures of one size only are taken."""
        return None not in {self.height, self.width}

    @cached_property
    def fixed_shape(self) -> tuple[int, ...]:
        """The shape of one image of a spec without free axes."""
        sizes = tuple(axis for axis in self.shape if isinstance(axis, int))
        assert len(sizes) == len(self.shape), "a free axis has no size"
        return sizes


class ImageReader(ImageSpec):
    """PNG and JPEG files, or nested lists of pixels -> images uint8 [batch, height, width(, 3)]."""

    kind: Literal["image"] = "image"
    resize: Resize | None = None

    @model_validator(mode="after")
    def _check_resize(self) -> Self:
        if self.resize is not None and self.resize.result != (self.height, self.width):
            raise ValueError(
                f"resize gives {list(self.resize.result)}, the model takes {[self.height, self.width]} (height, width)"
            )
        return self

    @cached_property
    def has_one_size(self) -> bool:
        """Whether pictures of one size only are taken: neither a free axis nor a resize takes others."""
        return self.resize is None and None not in {self.height, self.width}

    @property
    def inputs(self) -> Specs:
        return (uint8("images", "batch", *self.shape),)


class State(FrozenModel):
    """The state that a recurrent model takes and gives: h and c, float32 [batch, layers, hidden] each."""

    layers: Layers
    hidden: Size

    def tensors(self, *names: str) -> Specs:
        return tuple(float32(name, "batch", self.layers, self.hidden) for name in names)


class SeriesReader(FrozenModel):
    """Series of numbers -> series float32 [batch, steps, channels], lengths int64 [batch], with a state h and c."""

    kind: Literal["series"] = "series"
    channels: Size
    state: State | None = None

    @property
    def inputs(self) -> Specs:
        state = () if self.state is None else self.state.tensors("h", "c")
        return (float32("series", "batch", "steps", self.channels), int64("lengths", "batch"), *state)


class TextReader(FrozenModel):
    """Texts -> ids int64 [batch, steps] of the bundle's tokenizer, lengths int64 [batch]."""

    kind: Literal["text"] = "text"
    vocabulary: Size

    @property
    def inputs(self) -> Specs:
        return (int64("ids", "batch", "steps"), int64("lengths", "batch"))


class NumberColumn(FrozenModel):
    """A column of numbers from `low` to `high`."""

    kind: Literal["number"] = "number"
    name: Name
    low: float = Field(default=-MAX_FLOAT32, ge=-MAX_FLOAT32, le=MAX_FLOAT32)
    high: float = Field(default=MAX_FLOAT32, ge=-MAX_FLOAT32, le=MAX_FLOAT32)

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"column {self.name!r}: low {self.low:g} is above high {self.high:g}")
        return self


class CategoryColumn(FrozenModel):
    """A column of texts out of `values`; the graph gets the index of the value."""

    kind: Literal["category"] = "category"
    name: Name
    values: tuple[str, ...] = Field(min_length=1, max_length=1 << 16)

    @model_validator(mode="after")
    def _check_values(self) -> Self:
        if len(set(self.values)) < len(self.values):
            raise ValueError(f"column {self.name!r} has a value twice")
        return self

    @cached_property
    def index(self) -> dict[str, int]:
        """The index of each value."""
        return {value: index for index, value in enumerate(self.values)}


Column = Annotated[NumberColumn | CategoryColumn, Field(discriminator="kind")]


class TableReader(FrozenModel):
    """Rows of named columns -> numbers float32 [batch, n], categories int64 [batch, m], in the order of the columns."""

    kind: Literal["table"] = "table"
    columns: tuple[Column, ...] = Field(min_length=1, max_length=1 << 12)

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        names = [column.name for column in self.columns]
        if len(set(names)) < len(names):
            raise ValueError(f"two columns have the name {next(name for name in names if names.count(name) > 1)!r}")
        return self

    @property
    def numbers(self) -> tuple[NumberColumn, ...]:
        return tuple(column for column in self.columns if isinstance(column, NumberColumn))

    @property
    def categories(self) -> tuple[CategoryColumn, ...]:
        return tuple(column for column in self.columns if isinstance(column, CategoryColumn))

    @property
    def inputs(self) -> Specs:
        specs: list[TensorSpec] = []
        if self.numbers:
            specs.append(float32("numbers", "batch", len(self.numbers)))
        if self.categories:
            specs.append(int64("categories", "batch", len(self.categories)))
        return tuple(specs)


class TensorsReader(FrozenModel):
    """Named tensors -> the inputs that the manifest declares, of any dtype, with the batch axis anywhere or nowhere."""

    kind: Literal["tensors"] = "tensors"


Reader = Annotated[ImageReader | SeriesReader | TextReader | TableReader | TensorsReader, Field(discriminator="kind")]
