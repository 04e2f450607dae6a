"""Small graphs from elsewhere, and golden files for them, whose outputs numpy computes."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

RNG = np.random.default_rng(3)
W = RNG.normal(size=(4, 3)).astype(np.float32)
Array = np.ndarray[Any, Any]


def value(name: str, kind: int, *shape: int | str | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, list(shape))


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    opset: int = 17,
    **constants: Any,
) -> onnx.ModelProto:
    weights = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", opset)])


def linear(*, batch: int | str | None = None, opset: int = 17) -> onnx.ModelProto:
    """scores = X W, and the place of the largest score as `label`."""
    nodes = [
        helper.make_node("MatMul", ["X", "w"], ["scores"]),
        helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
    ]
    outputs = [value("label", TensorProto.INT64, batch), value("scores", TensorProto.FLOAT, batch, 3)]
    return model_of(nodes, [value("X", TensorProto.FLOAT, batch, 4)], outputs, opset, w=W)


def mean_of_steps(frozen: int | None = None) -> onnx.ModelProto:
    """y = the mean of x over its steps; a frozen graph means the first steps only, whatever it declares."""
    steps = [helper.make_node("Slice", ["x", "zero", "end", "one"], ["cut"])] if frozen else []
    nodes = [*steps, helper.make_node("ReduceMean", ["cut" if frozen else "x"], ["y"], axes=[1], keepdims=0)]
    inputs = [value("x", TensorProto.FLOAT, "batch", "time", 2)]
    outputs = [value("y", TensorProto.FLOAT, "batch", 2)]
    sizes = {"zero": np.array([0]), "end": np.array([frozen]), "one": np.array([1])} if frozen else {}
    return model_of(nodes, inputs, outputs, **sizes)


def written(folder: Path, model: onnx.ModelProto, name: str = "model.onnx") -> Path:
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path


def golden(folder: Path, *cases: Mapping[str, Array]) -> Path:
    """A golden file; the arrays of later cases have the suffixes .1, .2."""
    path = folder / "golden.safetensors"
    arrays = {
        f"{name}.{number}" if number else name: np.ascontiguousarray(array)
        for number, case in enumerate(cases)
        for name, array in case.items()
    }
    save_file(arrays, path)
    return path


def linear_case(batch: int) -> dict[str, Array]:
    x = RNG.normal(size=(batch, 4)).astype(np.float32)
    return {"X": x, "scores": x @ W, "label": (x @ W).argmax(1)}


def mean_case(batch: int, steps: int) -> dict[str, Array]:
    x = RNG.normal(size=(batch, steps, 2)).astype(np.float32)
    return {"x": x, "y": x.mean(1)}


def options(model: Path, golden: Path | None, spec: str = "", name: str | None = None) -> Namespace:
    """The options of the command, with the text of a spec beside the model."""
    path = None
    if spec:
        path = model.parent / "spec.toml"
        path.write_text(spec)
    return Namespace(model=model, golden=golden, spec=path, name=name, bundles=model.parent / "bundles")
