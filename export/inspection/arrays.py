"""First specs of arrays: of the examples of a model, or of its state_dict."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from export.inspection.first_spec import FILL_IN, Seen, table, tensor_tables
from export.source import Array
from export.sources.examples import GROUP, TARGETS

NOTE = FILL_IN[2:]
MAX_LINES = 40
NORMALISED = "what training made of pixels * scale: (x - mean) / std; scale is 1/255 by default"


def inspect_arrays(path: Path, arrays: Mapping[str, Array]) -> Seen:
    """The spec of examples; if the names are those of weights, of a state_dict."""
    lines = [f"{path}: {len(arrays)} arrays"]
    lines += [f"  {name} {array.dtype} {list(array.shape)}" for name, array in list(arrays.items())[:MAX_LINES]]
    if len(arrays) > MAX_LINES:
        lines.append(f"  and {len(arrays) - MAX_LINES} more")
    is_weights = any(name.endswith((".weight", ".bias", ".running_mean")) for name in arrays)
    spec = _state_dict(arrays) if is_weights else _examples(arrays)
    return Seen(lines=tuple(lines), spec=spec)


def _examples(arrays: Mapping[str, Array]) -> str:
    groups = [(match[1] if (match := GROUP.fullmatch(name)) else name, array) for name, array in arrays.items()]
    target = next((array for name, array in groups if name in TARGETS), None)
    items = {name: array for name, array in groups if name not in TARGETS and array.ndim}
    sizes: dict[str, list[Array]] = {}
    for name, array in groups:
        sizes.setdefault(name, []).append(array)
    reader = _reader(items, sizes)
    return f"{reader}\n{_head(target)}"


def _reader(items: Mapping[str, Array], groups: Mapping[str, list[Array]]) -> str:
    payload = {name: array for name, array in items.items() if name not in {"lengths", "categories"}}
    if len(payload) == 1:
        [(name, array)] = payload.items()
        if array.dtype == np.uint8 and (array.ndim == 3 or (array.ndim == 4 and array.shape[3] == 3)):
            sides = {}
            for axis, key in ((1, "height"), (2, "width")):
                sizes = sorted({group.shape[axis] for group in groups[name]})
                sides[key] = sizes[0] if len(sizes) == 1 else [sizes[0], sizes[-1]]
            values = {"kind": "image", **sides, "mode": "L" if array.ndim == 3 else "RGB"}
            return table("reader", values, {"mean, std": NORMALISED})
        if array.dtype.kind == "U":
            return table("reader", {"kind": "text", "tokenizer": "tokenizer.json"})
        if "lengths" in items and array.ndim == 3:
            return table("reader", {"kind": "series", "channels": array.shape[2]})
    if {"numbers", "categories"} & set(items):
        return _table_reader(items)
    tensors = [(name, str(array.dtype), ["batch", *array.shape[1:]]) for name, array in items.items()]
    return table("reader", {"kind": "tensors"}) + tensor_tables("reader.inputs", tensors)


def _table_reader(items: Mapping[str, Array]) -> str:
    text = table("reader", {"kind": "table"})
    for column in range(items["numbers"].shape[1] if "numbers" in items else 0):
        values = items["numbers"][:, column]
        found = {"name": f"number_{column}", "kind": "number", "low": float(values.min()), "high": float(values.max())}
        text += table("[reader.columns]", found, {"name": f"{NOTE} the name of the column"})
    for column in range(items["categories"].shape[1] if "categories" in items else 0):
        codes = items["categories"][:, column]
        known = sorted({str(value) for value in codes}) if codes.dtype.kind == "U" else []
        values_of = known or [str(value) for value in range(int(codes.max()) + 1)]
        found_column = {"name": f"category_{column}", "kind": "category", "values": values_of}
        remark = f"{NOTE} the name of the column, and of its values"
        text += table("[reader.columns]", found_column, {"name": remark})
    return text


def _head(target: Array | None) -> str:
    if target is None:
        return table("head", {"kind": "tensors"}, {"kind": f"{NOTE} labels, values, embedding, if it is one of these"})
    if target.dtype.kind == "U":
        return table("head", {"kind": "labels", "labels": sorted({str(value) for value in target.reshape(-1)})})
    if target.dtype.kind == "f":
        count = 1 if target.ndim == 1 else target.shape[1]
        names = [f"value_{i}" for i in range(count)]
        return table("head", {"kind": "values", "names": names}, {"names": f"{NOTE} their names, and units = [...]"})
    if target.ndim == 2:
        labels = [f"label_{i}" for i in range(target.shape[1])]
        return table("head", {"kind": "multilabel", "labels": labels}, {"labels": f"{NOTE} their names"})
    remark = f'{NOTE} their names, as ["cat", "dog"] or a file with one a line, if they are not numbers'
    return table("head", {"kind": "labels", "labels": int(target.max()) + 1}, {"labels": remark})


def _state_dict(arrays: Mapping[str, Array]) -> str:
    """What the weights tell: channels of pictures or a vocabulary, and the number of outputs."""
    weights = {name: array for name, array in arrays.items() if name.endswith("weight") and array.ndim > 1}
    if not weights:
        return table("reader", {"kind": "tensors"}) + "\n" + table("head", {"kind": "tensors"})
    # A file of safetensors is sorted by name, so neither the first nor the last layer is known by its place.
    last = min(weights.values(), key=lambda array: array.shape[0])
    embedding = next((array for name, array in weights.items() if "emb" in name and array.ndim == 2), None)
    convolutions = [array for array in weights.values() if array.ndim == 4]
    if convolutions:
        first = min(convolutions, key=lambda array: array.shape[1])
        mode = "L" if first.shape[1] == 1 else "RGB"
        remarks = {
            "height": f"{NOTE} of the pictures that the model takes",
            "width": f"{NOTE} of the pictures that the model takes",
            "mean, std": NORMALISED,
        }
        reader = table("reader", {"kind": "image", "height": 224, "width": 224, "mode": mode}, remarks)
    elif embedding is not None:
        values = {"kind": "text", "tokenizer": "tokenizer.json", "vocabulary": embedding.shape[0]}
        reader = table("reader", values, {"tokenizer": f"{NOTE} the tokenizer of training"})
    else:
        remark = f"{NOTE} image, series, text or table, if it reads these"
        reader = table("reader", {"kind": "tensors"}, {"kind": remark})
    remark = f"{NOTE} their names; {last.shape[0]} is the size of the smallest layer; or another kind of head"
    return reader + "\n" + table("head", {"kind": "labels", "labels": last.shape[0]}, {"labels": remark})
