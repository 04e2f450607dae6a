"""Reader inputs as modules: the canonical tensors of a reader become the arguments that somebody's model takes.

Each module returns the arguments by the model's own names, in order; `names` says which. They compute in the dtype of
their buffers, so that the same module gives the reference in float64.

Shapes: B batch, H height, W width, C channels, T steps, N numbers, M categories.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from export.spec import PIXEL_SCALE, ImagePart, SeriesPart, Spec, TablePart, TensorsPart, TextPart

Arguments = dict[str, Tensor]
LENGTHS, MASK = "lengths", "mask"
TEXT_EXTRAS = (LENGTHS, "attention_mask", "token_type_ids", "position_ids")


class Floating(nn.Module):
    """A module that knows the type of floats in which it computes, without a buffer that no operator would use."""

    dtype = torch.float32

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self.dtype = fn(torch.zeros((), dtype=self.dtype)).dtype
        return self


class ImageInput(Floating):
    """images uint8 [B, H, W] or [B, H, W, 3] -> one float tensor, scaled and normalised as training did it."""

    mean: Tensor
    std: Tensor

    def __init__(self, part: ImagePart, name: str) -> None:
        super().__init__()
        self.name, self.layout, self.scale = name, part.layout, part.scale
        self.is_normalised = (part.mean, part.std) != (0.0, 1.0)
        for key in ("mean", "std") if self.is_normalised else ():
            self.register_buffer(key, torch.tensor(getattr(part, key), dtype=torch.float32).reshape(-1))

    def forward(self, images: Tensor) -> Arguments:
        x_BHWC = images if images.dim() == 4 else images.unsqueeze(-1)
        x_BHWC = x_BHWC.to(self.dtype)
        # Division rounds as torchvision's ToTensor does, a product with 1/255 does not.
        x_BHWC = x_BHWC / 255 if abs(self.scale - PIXEL_SCALE) < 1e-9 else x_BHWC * self.scale
        if self.is_normalised:
            x_BHWC = (x_BHWC - self.mean) / self.std
        match self.layout:
            case "NHWC":
                x = x_BHWC
            case "NHW":
                x = x_BHWC.squeeze(-1)
            case "NCHW":
                x = x_BHWC.permute(0, 3, 1, 2)
            case _:
                x = x_BHWC.permute(0, 3, 1, 2).flatten(1)
        return {self.name: x}


class SeriesInput(nn.Module):
    """series [B, T, C], lengths [B] and a state [B, layers, hidden] -> the series in the model's layout.

    A state becomes what nn.LSTM takes: [layers, B, hidden].
    """

    def __init__(self, part: SeriesPart, name: str, extras: Mapping[str, str]) -> None:
        super().__init__()
        self.name, self.layout, self.has_state = name, part.layout, part.state is not None
        self.extras = dict(extras)

    def forward(self, series: Tensor, lengths: Tensor, *state: Tensor) -> Arguments:
        mask_BT = step_mask(series, lengths)
        # A model that is not told the lengths gets zeros behind them, whatever a caller has left there.
        x_BTC = series if LENGTHS in self.extras else torch.where(mask_BT.unsqueeze(-1), series, 0.0)
        x = {"NTC": x_BTC, "NCT": x_BTC.transpose(1, 2), "TNC": x_BTC.transpose(0, 1)}[self.layout]
        known = {LENGTHS: lengths, MASK: mask_BT}
        arguments = {self.name: x, **{name: known[extra] for extra, name in self.extras.items()}}
        return arguments | {name: part.transpose(0, 1) for name, part in zip(("h", "c"), state, strict=False)}


class TextInput(nn.Module):
    """ids [B, T] and lengths [B] -> ids, zero behind the end, with the masks that the model takes."""

    def __init__(self, name: str, extras: Mapping[str, str]) -> None:
        super().__init__()
        self.name, self.extras = name, dict(extras)

    def forward(self, ids: Tensor, lengths: Tensor) -> Arguments:
        mask_BT = step_mask(ids, lengths)
        positions_T = torch.arange(ids.shape[1], device=ids.device)
        known = {
            LENGTHS: lengths,
            "attention_mask": mask_BT.to(torch.int64),
            "token_type_ids": torch.zeros_like(ids),
            "position_ids": positions_T.expand_as(ids),
        }
        # Whatever a caller left behind the end of a text must not count.
        return {
            self.name: torch.where(mask_BT, ids, 0),
            **{name: known[extra] for extra, name in self.extras.items()},
        }


class TableInput(Floating):
    """numbers [B, N] and categories [B, M] -> two tensors, or one joined tensor of floats."""

    def __init__(self, part: TablePart, names: Sequence[str]) -> None:
        super().__init__()
        self.names, self.encoding, self.join = tuple(names), part.encoding, part.join
        self.has_numbers = any(column.kind == "number" for column in part.columns)
        self.sizes = [len(column.values) for column in part.columns if column.kind == "category"]

    def forward(self, *columns: Tensor) -> Arguments:
        tensors = list(columns)
        if self.sizes:
            codes_BM = tensors[-1]
            if self.encoding == "one-hot":
                hot = [nn.functional.one_hot(codes_BM[:, i], size) for i, size in enumerate(self.sizes)]
                tensors[-1] = torch.cat(hot, 1).to(self.dtype)
            elif self.join:
                tensors[-1] = codes_BM.to(self.dtype)
        if self.join:
            tensors = [torch.cat(tensors, 1)]
        return dict(zip(self.names, tensors, strict=True))


class ColumnsInput(Floating):
    """numbers [B, N] and categories [B, M] -> a tensor [B, 1] for each column, by its name; categories are indices."""

    def __init__(self, part: TablePart) -> None:
        super().__init__()
        self.columns = table_columns(part)

    def forward(self, *tensors: Tensor) -> Arguments:
        by_kind = dict(zip(dict.fromkeys(kind for _, kind, _ in self.columns), tensors, strict=True))
        return {name: by_kind[kind][:, place : place + 1] for name, kind, place in self.columns}


def table_columns(part: TablePart) -> list[tuple[str, str, int]]:
    """Name, kind and place among the columns of its kind, of the numbers and then of the categories."""
    named = [(kind, [column.name for column in part.columns if column.kind == kind]) for kind in ("number", "category")]
    return [(name, kind, place) for kind, names in named for place, name in enumerate(names)]


class TensorsInput(nn.Module):
    """The model's own inputs as they are."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)

    def forward(self, *tensors: Tensor) -> Arguments:
        return dict(zip(self.names, tensors, strict=True))


def step_mask(x_BT: Tensor, lengths_B: Tensor) -> Tensor:
    """True at each step before the end of its row: bool [B, T]."""
    return torch.arange(x_BT.shape[1], device=x_BT.device) < lengths_B.unsqueeze(1)


def build_input(spec: Spec, parameters: Sequence[str] | None, names: Sequence[str]) -> nn.Module:
    """The module for the reader of `spec`. `own` are the parameters of the model's forward, None if it takes any;
    `names` are the inputs of a `tensors` reader. Raises ValueError for a name that the model does not have."""
    part: Any = spec.reader
    if isinstance(part, ImagePart):
        return ImageInput(part, _first(part.input, parameters, "images"))
    if isinstance(part, SeriesPart):
        return SeriesInput(part, _first(part.input, parameters, "series"), _extras(part, parameters, (LENGTHS, MASK)))
    if isinstance(part, TextPart):
        return TextInput(_first(part.input, parameters, "ids"), _extras(part, parameters, TEXT_EXTRAS))
    if isinstance(part, TablePart) and has_columns(part, parameters):
        return ColumnsInput(part)
    if isinstance(part, TablePart):
        return TableInput(part, _table_names(part, parameters))
    assert isinstance(part, TensorsPart)
    if parameters is not None and not set(names) <= set(parameters):
        # Names that are no parameters are given by position.
        names = parameters[: len(names)]
    return TensorsInput(names)


def has_columns(part: TablePart, parameters: Sequence[str] | None) -> bool:
    """Whether the model's inputs are the columns themselves."""
    return parameters is not None and set(parameters) == {column.name for column in part.columns}


def _first(declared: str | None, parameters: Sequence[str] | None, default: str) -> str:
    if declared is not None:
        return _known("input", declared, parameters)
    return parameters[0] if parameters else default


def _known(key: str, name: str, parameters: Sequence[str] | None) -> str:
    if parameters is not None and name not in parameters:
        raise ValueError(f"[reader] {key} is {name!r}, but forward takes {', '.join(parameters) or 'nothing'}")
    return name


def _extras(part: Any, parameters: Sequence[str] | None, known: Sequence[str]) -> dict[str, str]:
    """The model's names of the tensors beside the series or the ids: those of the spec, else those that forward has."""
    extras = {}
    for extra in known:
        declared = getattr(part, extra)
        if declared is not None:
            extras[extra] = _known(extra, declared, parameters)
        elif parameters is not None and extra in parameters[1:]:
            extras[extra] = extra
    return extras


def _table_names(part: TablePart, parameters: Sequence[str] | None) -> list[str]:
    kinds = [kind for kind in ("number", "category") if any(column.kind == kind for column in part.columns)]
    keys = ["numbers" if kind == "number" else "categories" for kind in kinds]
    if part.join:
        keys = keys[:1]
    names = []
    for position, key in enumerate(keys):
        declared = getattr(part, key)
        if declared is not None:
            names.append(_known(key, declared, parameters))
        elif parameters is not None and key not in parameters and position >= len(parameters):
            raise ValueError(
                f"forward takes {', '.join(parameters) or 'nothing'}, but the columns make {' and '.join(keys)}; "
                "give it one tensor with join = true"
            )
        else:
            names.append(key if parameters is None or key in parameters else parameters[position])
    return names
