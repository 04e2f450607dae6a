"""Nodes around a graph from elsewhere: canonical tensors become its inputs, and its outputs become those of a head.

The same words of a spec make modules for PyTorch models (export.sources.module). These nodes are written by hand from
the ONNX operators, so that comparing the two finds a mistake in either.

Shapes: B batch, H height, W width, C channels, T steps, N numbers, M categories, L labels.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import compose, helper

from export.graph.node_builder import NodeBuilder
from export.spec import (
    PIXEL_SCALE,
    EmbeddingPart,
    ImageOutPart,
    ImagePart,
    LabelsPart,
    MultilabelPart,
    SeriesPart,
    TablePart,
    TokenLabelsPart,
    ValuesPart,
)
from service.contract.readers import CategoryColumn

# The model's own names of the tensors beside the series or the ids, by what they are.
Extras = Mapping[str, str]


def image_inputs(build: NodeBuilder, part: ImagePart, name: str) -> dict[str, str]:
    """images uint8 [B, H, W] or [B, H, W, 3] -> one float tensor in the layout of the graph."""
    x = build("Cast", "images", to=onnx.TensorProto.FLOAT)
    if abs(part.scale - PIXEL_SCALE) < 1e-9:
        x = build("Div", x, build.floats(255.0))
    else:
        x = build("Mul", x, build.floats(part.scale))
    if (part.mean, part.std) != (0.0, 1.0):
        x = build("Sub", x, build.floats(part.mean))
        x = build("Div", x, build.floats(part.std))
    is_grey = part.mode == "L"
    match part.layout:
        case "NHWC" if is_grey:
            x = build("Unsqueeze", x, build.integers(3))
        case "NCHW" if is_grey:
            x = build("Unsqueeze", x, build.integers(1))
        case "NCHW":
            x = build("Transpose", x, perm=[0, 3, 1, 2])
        case "flat":
            x = build("Flatten", x if is_grey else build("Transpose", x, perm=[0, 3, 1, 2]), axis=1)
    return {name: x}


def series_inputs(build: NodeBuilder, part: SeriesPart, name: str, extras: Extras) -> dict[str, str]:
    """series [B, T, C], lengths [B], a state [B, layers, hidden] -> the series in the graph's layout, and the rest."""
    mask_BT, x = build.step_mask("series", "lengths"), "series"
    if "lengths" not in extras:
        mask_BT1 = build("Unsqueeze", mask_BT, build.integers(2))
        x = build("Where", mask_BT1, x, build.floats(0.0, is_scalar=True))
    if part.layout != "NTC":
        x = build("Transpose", x, perm=[0, 2, 1] if part.layout == "NCT" else [1, 0, 2])
    known = {"lengths": "lengths", "mask": mask_BT}
    inputs = {name: x, **{graph_name: known[extra] for extra, graph_name in extras.items()}}
    if part.state is not None:
        inputs |= {state: build("Transpose", state, perm=[1, 0, 2]) for state in ("h", "c")}
    return inputs


def text_inputs(build: NodeBuilder, name: str, extras: Extras) -> dict[str, str]:
    """ids [B, T] and lengths [B] -> ids, zero behind the end, with the masks that the graph takes."""
    mask_BT = build.step_mask("ids", "lengths")
    makers: dict[str, Callable[[], str]] = {
        "lengths": lambda: "lengths",
        "attention_mask": lambda: build("Cast", mask_BT, to=onnx.TensorProto.INT64),
        "token_type_ids": lambda: build("Mul", "ids", build.integers(0)),
        "position_ids": lambda: build("Expand", build.steps("ids"), build("Shape", "ids")),
    }
    ids = build("Where", mask_BT, "ids", build.integers(0))
    return {name: ids, **{graph_name: makers[extra]() for extra, graph_name in extras.items()}}


def table_inputs(build: NodeBuilder, part: TablePart, names: Sequence[str]) -> dict[str, str]:
    """numbers [B, N] and categories [B, M] -> two tensors, or one joined tensor of floats."""
    tensors = ["numbers"] if any(column.kind == "number" for column in part.columns) else []
    sizes = [len(column.values) for column in part.columns if column.kind == "category"]
    if sizes:
        codes = "categories"
        if part.encoding == "one-hot":
            hot = []
            for i, size in enumerate(sizes):
                column_B1 = build("Gather", "categories", build.integers(i), axis=1)
                equal_BV = build("Equal", column_B1, build.integers(*range(size)))
                hot.append(build("Cast", equal_BV, to=onnx.TensorProto.FLOAT))
            codes = build("Concat", *hot, axis=1)
        elif part.join:
            codes = build("Cast", "categories", to=onnx.TensorProto.FLOAT)
        tensors.append(codes)
    if part.join:
        tensors = [build("Concat", *tensors, axis=1)]
    return dict(zip(names, tensors, strict=True))


def column_inputs(build: NodeBuilder, part: TablePart, dtypes: Mapping[str, str]) -> dict[str, str]:
    """numbers [B, N] and categories [B, M] -> one value [B, 1] for each column; a category of texts is its value."""
    values: dict[str, str] = {}
    for kind, tensor in (("number", "numbers"), ("category", "categories")):
        for place, column in enumerate(column for column in part.columns if column.kind == kind):
            values[column.name] = build("Gather", tensor, build.integers(place), axis=1)
            if isinstance(column, CategoryColumn) and dtypes[column.name] == "string":
                values[column.name] = build("Gather", build.texts(*column.values), values[column.name], axis=0)
    return values


def head_outputs(build: NodeBuilder, part: Any, output: str, rank: int) -> dict[str, str]:
    """An output of the graph with `rank` axes -> the outputs of the head. Raises ValueError for another head."""
    match part:
        case LabelsPart() | MultilabelPart() | TokenLabelsPart():
            return _probabilities(build, part, output)
        case ValuesPart():
            values = build("Unsqueeze", output, build.integers(1)) if rank == 1 else output
            if (part.mean, part.std) != (0.0, 1.0):
                values = build("Add", build("Mul", values, build.floats(part.std)), build.floats(part.mean))
            return {"values": values}
        case EmbeddingPart():
            return {"embedding": _embedding(build, part, output)}
        case ImageOutPart():
            return {"images": _pixels(build, part, output)}
    raise ValueError(f"[head] kind {part.kind!r} cannot be made of a graph's own outputs")


def _probabilities(build: NodeBuilder, part: Any, output: str) -> dict[str, str]:
    if part.activation == "none":
        return {"probabilities": output}
    if isinstance(part, LabelsPart) and part.activation == "sigmoid":
        score_B1 = build("Reshape", output, build.integers(-1, 1))
        negative_B1 = build("Neg", score_B1)
        logits_BL = build("Concat", build("Mul", score_B1, build.floats(0.0)), score_B1, axis=1)
        pair_BL = build("Concat", negative_B1, score_B1, axis=1)
        return {"logits": logits_BL, "probabilities": build("Sigmoid", pair_BL)}
    activation = build("Sigmoid", output) if part.activation == "sigmoid" else build("Softmax", output, axis=-1)
    return {"logits": output, "probabilities": activation}


def _embedding(build: NodeBuilder, part: EmbeddingPart, output: str) -> str:
    if part.pooling == "first":
        output = build("Gather", output, build.scalar(0), axis=1)
    elif part.pooling == "mean":
        mask_BT1 = build("Unsqueeze", build.step_mask(output, "lengths"), build.integers(2))
        masked = build("Where", mask_BT1, output, build.floats(0.0, is_scalar=True))
        total = build("ReduceSum", masked, build.integers(1), keepdims=0)
        lengths_B1 = build("Unsqueeze", "lengths", build.integers(1))
        output = build("Div", total, build("Cast", lengths_B1, to=onnx.TensorProto.FLOAT))
    if not part.normalized:
        return output
    squares = build("ReduceSum", build("Mul", output, output), build.integers(-1), keepdims=1)
    # The bound of torch.nn.functional.normalize.
    return build("Div", output, build("Max", build("Sqrt", squares), build.floats(1e-12)))


def _pixels(build: NodeBuilder, part: ImageOutPart, output: str) -> str:
    pixels = build("Round", build("Mul", output, build.floats(part.scale)))
    pixels = build("Clip", pixels, build.floats(0.0, is_scalar=True), build.floats(255.0, is_scalar=True))
    pixels = build("Cast", pixels, to=onnx.TensorProto.UINT8)
    if part.layout == "NCHW":
        pixels = build("Transpose", pixels, perm=[0, 2, 3, 1])
    if part.mode == "L" and part.layout != "NHW":
        pixels = build("Squeeze", pixels, build.integers(-1))
    return pixels


def renamed(model: onnx.ModelProto, prefix: str) -> onnx.ModelProto:
    """The model with this prefix before every name of a value, so that canonical names are free."""
    return compose.add_prefix(model, prefix, rename_functions=False)


def value_info(name: str, dtype: str, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    """The description of an input or output."""
    kind = onnx.TensorProto.STRING if dtype == "string" else helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return helper.make_tensor_value_info(name, kind, list(shape))
