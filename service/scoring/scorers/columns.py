"""Heads as columns: the answer of the service to each row, as typed columns of the output."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from service.contract.heads import MultilabelHead, ValuesHead
from service.manifest import Manifest
from service.tasks.codecs.images import encode_png
from service.tasks.codecs.states import pack_state
from service.tasks.codecs.texts import TokenizedText
from service.tasks.heads import HEADS as TASK_HEADS
from service.tasks.heads.multilabel import is_chosen
from service.tasks.heads.ranking import top_labels
from service.tasks.heads.token_labels import label_tokens

# By output, for all rows: one array, or a list of arrays of several shapes.
Outputs: TypeAlias = Mapping[str, Any]
Request: TypeAlias = Mapping[str, Any]
PAIR = pa.struct([("label", pa.string()), ("probability", pa.float32())])
TOKEN = pa.struct(
    [
        ("text", pa.string()),
        ("start", pa.int32()),
        ("end", pa.int32()),
        ("label", pa.string()),
        ("probability", pa.float32()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns of an answer; `labels` and `confidence` are those that a summary counts."""

    columns: Mapping[str, pa.Array]
    labels: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    confidence: npt.NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))


@dataclass(frozen=True, kw_only=True)
class Head:
    """`columns(manifest, outputs, texts, request)` makes the columns of rows whose outputs these are."""

    outputs: Callable[[Manifest], Sequence[str]]
    columns: Callable[[Manifest, Outputs, Sequence[TokenizedText], Request], Columns]


def _labels(manifest: Manifest, outputs: Outputs, _texts: Sequence[TokenizedText], request: Request) -> Columns:
    return rank_columns(outputs["probabilities"], _label_array(manifest), request.get("top_k", 1))


def _multilabel(manifest: Manifest, outputs: Outputs, _texts: Sequence[TokenizedText], request: Request) -> Columns:
    """A list of the labels of each row, the most probable first."""
    assert isinstance(manifest.head, MultilabelHead)
    probabilities_BL = outputs["probabilities"]
    threshold = request.get("threshold")
    chosen_BL = is_chosen(probabilities_BL, manifest.head.threshold if threshold is None else threshold)
    order_BL = np.argsort(-probabilities_BL, axis=1, kind="stable")
    is_kept = np.take_along_axis(chosen_BL, order_BL, axis=1)
    labels, probabilities = order_BL[is_kept], np.take_along_axis(probabilities_BL, order_BL, axis=1)[is_kept]
    offsets = np.cumsum([0, *chosen_BL.sum(axis=1)])
    pairs = pair_lists(_label_array(manifest).take(pa.array(labels)), pa.array(probabilities, pa.float32()), offsets)
    return Columns(columns={"labels": pairs}, labels=labels)


def _values(manifest: Manifest, outputs: Outputs, _texts: Sequence[TokenizedText], _request: Request) -> Columns:
    assert isinstance(manifest.head, ValuesHead)
    values_BN = outputs["values"]
    names = enumerate(manifest.head.names)
    return Columns(columns={name: pa.array(np.ascontiguousarray(values_BN[:, i])) for i, name in names})


def _embedding(_manifest: Manifest, outputs: Outputs, _texts: Sequence[TokenizedText], _request: Request) -> Columns:
    return Columns(columns={"embedding": nested_lists(outputs["embedding"])})


def _token_labels(manifest: Manifest, outputs: Outputs, texts: Sequence[TokenizedText], request: Request) -> Columns:
    """The label of each token with its place in the text; of a series, its last label and those of all steps."""
    steps = outputs["probabilities"]
    if manifest.reader.kind == "text":
        rows = [label_tokens(text, row, manifest.labels) for text, row in zip(texts, steps, strict=True)]
        numbers = {label: number for number, label in enumerate(manifest.labels)}
        counted = np.array([numbers[token["label"]] for row in rows for token in row], np.int64)
        return Columns(columns={"tokens": pa.array(rows, pa.list_(TOKEN))}, labels=counted)
    empty = np.zeros((0, len(manifest.labels)), np.float32)
    last = np.stack([row[-1] for row in steps]) if steps else empty
    ranked = rank_columns(last, _label_array(manifest), request.get("top_k", 1))
    flat = rank_columns(np.concatenate([empty, *steps]), _label_array(manifest), 1).columns
    offsets = np.cumsum([0, *(len(row) for row in steps)])
    columns = {**ranked.columns, "steps": pair_lists(flat["label"], flat["probability"], offsets)}
    if "next_h" in outputs:
        states = [pack_state(manifest, h, c) for h, c in zip(outputs["next_h"], outputs["next_c"], strict=True)]
        columns["state"] = pa.array(states, pa.string())
    return Columns(columns=columns, labels=ranked.labels, confidence=ranked.confidence)


def _image(manifest: Manifest, outputs: Outputs, _texts: Sequence[TokenizedText], _request: Request) -> Columns:
    [spec] = manifest.head.outputs(manifest.reader)
    return Columns(columns={"image": pa.array([encode_png(image) for image in outputs[spec.name]], pa.binary())})


def _tensors(manifest: Manifest, outputs: Outputs, _texts: Sequence[TokenizedText], _request: Request) -> Columns:
    """One column of nested lists for each output."""
    columns = {}
    for spec in manifest.outputs:
        values = outputs[spec.name]
        if isinstance(values, np.ndarray):
            columns[spec.name] = nested_lists(values)
            continue
        kind = pa.string() if spec.dtype == "string" else pa.from_numpy_dtype(spec.numpy_dtype)
        for _ in spec.row_shape:
            kind = pa.list_(kind)
        columns[spec.name] = pa.array([row.tolist() for row in values], kind)
    return Columns(columns=columns)


HEADS: Mapping[str, Head] = {
    kind: Head(outputs=TASK_HEADS[kind].outputs, columns=columns)
    for kind, columns in {
        "labels": _labels,
        "multilabel": _multilabel,
        "values": _values,
        "embedding": _embedding,
        "token-labels": _token_labels,
        "image": _image,
        "tensors": _tensors,
    }.items()
}


def rank_columns(probabilities_BL: npt.NDArray[np.float32], labels: pa.Array, top_k: int) -> Columns:
    """The columns label, probability and, if top_k > 1, top."""
    order_BK, probability_BK = top_labels(probabilities_BL, top_k)
    columns = {"label": labels.take(pa.array(order_BK[:, 0])), "probability": pa.array(probability_BK[:, 0])}
    if top_k > 1:
        count, width = order_BK.shape
        flat_labels, flat_probabilities = labels.take(pa.array(order_BK.ravel())), pa.array(probability_BK.ravel())
        columns["top"] = pair_lists(flat_labels, flat_probabilities, np.arange(count + 1) * width)
    return Columns(columns=columns, labels=order_BK[:, 0], confidence=probability_BK[:, 0])


def pair_lists(labels: pa.Array, probabilities: pa.Array, offsets: npt.NDArray[np.int64]) -> pa.ListArray:
    """Lists of pairs of label and probability, cut at the offsets."""
    pairs = pa.StructArray.from_arrays([labels, probabilities], ["label", "probability"])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pairs)


def nested_lists(values: npt.NDArray[Any]) -> pa.Array:
    """An array [rows, ...] as a column of nested lists of fixed sizes."""
    flat = values.reshape(-1)
    column = pa.array(flat.tolist(), pa.string()) if values.dtype.hasobject else pa.array(np.ascontiguousarray(flat))
    for size in reversed(values.shape[1:]):
        column = pa.FixedSizeListArray.from_arrays(column, size)
    return column


def _label_array(manifest: Manifest) -> pa.Array:
    return pa.array(manifest.labels, pa.string())
