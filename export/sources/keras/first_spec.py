"""A spec for a Keras model without spec.toml, as far as the model says what it reads and answers.

The labels are then numbers. A model of pictures says nothing about the pixels, unless a Rescaling layer comes first.
"""

from typing import Any

from export.errors import ExportError
from export.sources.keras.layers.values import STAGE
from export.sources.keras.states import StatefulLayer
from export.sources.keras.twin import calls, graph_of, tensors_of

Tables = dict[str, dict[str, Any]]
CHANNELS = {1: "L", 3: "RGB"}


def draft_spec(model: Any, states: tuple[StatefulLayer, ...]) -> Tables:
    """The reader and the head of a spec. Raises ExportError if pixels could mean several things."""
    function = graph_of(model)
    reader = _reader(function, states)
    return {"reader": reader, "head": _head(function, reader["kind"], states)}


def _reader(function: Any, states: tuple[StatefulLayer, ...]) -> dict[str, Any]:
    first = function.inputs[0]
    shape, is_single = tuple(first.shape), len(function.inputs) == 1
    if (is_single or states) and len(shape) == 3 and shape[1] is None and first.dtype == "float32":
        state = {"state": {"layers": len(states), "hidden": states[0].hidden}} if states else {}
        return {"kind": "series", "channels": shape[2], **state}
    is_picture = (len(shape) == 4 and shape[3] in CHANNELS) or (len(shape) == 3 and first.dtype == "uint8")
    if is_single and is_picture and None not in shape[1:3]:
        takes = [node.operation for node in calls(function) if any(one is first for one in tensors_of(node))]
        if first.dtype != "uint8" and any(type(layer).__name__ != "Rescaling" for layer in takes):
            raise ExportError(
                STAGE,
                f"the input {list(shape[1:])} looks like pictures, but nothing says how pixels become its numbers; "
                "say it in a spec.toml: [reader] kind = 'image' with scale, mean and std, or kind = 'tensors'",
            )
        layout = "NHWC" if len(shape) == 4 else "NHW"
        mode = CHANNELS[shape[3]] if len(shape) == 4 else "L"
        return {"kind": "image", "height": shape[1], "width": shape[2], "mode": mode, "layout": layout, "scale": 1.0}
    return {"kind": "tensors", "inputs": [_tensor(tensor) for tensor in function.inputs]}


def _tensor(tensor: Any) -> dict[str, Any]:
    axes = [f"{tensor.name}_{position}" if size is None else size for position, size in enumerate(tensor.shape)]
    return {"name": tensor.name, "dtype": tensor.dtype, "shape": ["batch", *axes[1:]]}


def _head(function: Any, reader: str, states: tuple[StatefulLayer, ...]) -> dict[str, Any]:
    output = function.outputs[0]
    layer, shape = output._keras_history.operation, tuple(output.shape)
    is_softmax = "softmax" in (
        getattr(getattr(layer, "activation", None), "__name__", ""),
        type(layer).__name__.lower(),
    )
    if is_softmax and len(shape) == 2 and not states:
        return {"kind": "labels", "labels": shape[1], "activation": "none"}
    if is_softmax and len(shape) == 3 and reader == "series":
        return {"kind": "token-labels", "labels": shape[2], "activation": "none"}
    return {"kind": "tensors"}
